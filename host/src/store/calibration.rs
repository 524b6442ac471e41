//! What this machine was measured to do, so that it is not measured at each start.

use super::{Store, StoreError, private};
use std::path::Path;

const CALIBRATION: &str = "calibration";
const BYTES_MAX: u64 = 256;

/// What was measured under an id, if that was the last one, by the host of a data
/// directory.
pub fn calibration_of(data_dir: &Path, id: &str) -> Option<u64> {
    let bytes = private::read(&data_dir.join(CALIBRATION), BYTES_MAX).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let (of, figure) = text.trim_end().split_once(' ')?;
    (of == id).then_some(figure.parse().ok()?)
}

impl Store {
    /// What was measured under an id, if that was the last one.
    pub fn calibration(&self, id: &str) -> Option<u64> {
        calibration_of(self.data_dir(), id)
    }

    /// Keeps what was measured.
    pub fn keep_calibration(&self, id: &str, figure: u64) -> Result<(), StoreError> {
        let text = format!("{id} {figure}\n");
        private::write(&self.data_dir().join(CALIBRATION), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn a_measurement_is_kept_for_its_id_alone() {
        let dir = TempDir::new().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.calibration("a"), None);
        store.keep_calibration("a", 7).unwrap();
        assert_eq!((store.calibration("a"), store.calibration("b")), (Some(7), None));
        assert_eq!(calibration_of(dir.path(), "a"), Some(7));
        assert_eq!(calibration_of(&dir.path().join("none"), "a"), None);
        store.keep_calibration("b", 8).unwrap();
        assert_eq!((store.calibration("a"), store.calibration("b")), (None, Some(8)));
        std::fs::write(dir.path().join(CALIBRATION), "b eight").unwrap();
        assert_eq!(store.calibration("b"), None);
    }
}
