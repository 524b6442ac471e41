//! Which files of a repository are fetched.
//!
//! Owns the globs and what is left out without being asked. Names come from
//! the hub, so none is used before it is checked.

use crate::package::checkpoint::{FOLDER, LockedFile};
use crate::package::config::Checkpoints;
use crate::package::folder::{DEPTH_MAX, ENTRIES_MAX, PACKAGE_BYTES_MAX, PATH_BYTES_MAX};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Endings of formats whose readers run code that the file brings.
const CODE_ENDINGS: [&str; 10] =
    [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".dill", ".h5", ".keras"];

/// Room for `checkpoints/` before a name.
const FOLDER_BYTES: usize = FOLDER.len() + 1;

/// What is fetched of a repository, and what is not.
#[derive(Debug, Default)]
pub struct Selection {
    /// Sorted by name.
    pub files: Vec<LockedFile>,
    /// Left out because reading them runs code.
    pub code: Vec<String>,
    /// How many ONNX files the globs leave out.
    pub onnx_left_out: usize,
}

/// Why nothing can be chosen.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// A glob is none.
    #[error("config.yaml: `checkpoints` has the pattern {0:?}, which is no glob; correct it")]
    Glob(String),
    /// A name that leads elsewhere.
    #[error("{repo_id} has a file called {name:?}; nothing of such a repository is fetched")]
    Name {
        /// The repository.
        repo_id: String,
        /// The file.
        name: String,
    },
    /// More than a package may hold.
    #[error(
        "{repo_id} has {files} files of {bytes} bytes in all, but a package has at most {ENTRIES_MAX} \
         of {PACKAGE_BYTES_MAX}; choose some by `allowed_file_patterns`"
    )]
    TooMuch {
        /// The repository.
        repo_id: String,
        /// How many it would be.
        files: usize,
        /// And how long.
        bytes: u64,
    },
}

/// Chooses by the globs of `config.yaml`, which may leave nothing; `*` also
/// matches `/`, as in Python's `fnmatch`, which the other platform uses.
pub fn select(
    checkpoints: &Checkpoints,
    listed: Vec<LockedFile>,
) -> Result<Selection, SelectionError> {
    let repo_id = || checkpoints.repo_id.clone();
    let allowed = globs(&checkpoints.allowed_file_patterns)?;
    let ignored = globs(&checkpoints.ignore_file_patterns)?;
    let mut selection = Selection::default();
    for file in listed {
        if !is_plain(&file.name) {
            return Err(SelectionError::Name { repo_id: repo_id(), name: file.name });
        }
        // Of git and of editors.
        if file.name.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        let chosen = (checkpoints.allowed_file_patterns.is_empty() || allowed.is_match(&file.name))
            && !ignored.is_match(&file.name);
        if !chosen {
            selection.onnx_left_out += usize::from(file.name.ends_with(".onnx"));
        } else if brings_code(&file.name, checkpoints) {
            selection.code.push(file.name);
        } else {
            selection.files.push(file);
        }
    }
    selection.files.sort_by(|a, b| a.name.cmp(&b.name));
    let files = selection.files.len();
    let bytes = selection.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.size));
    if files > ENTRIES_MAX || bytes > PACKAGE_BYTES_MAX {
        return Err(SelectionError::TooMuch { repo_id: repo_id(), files, bytes });
    }
    // Two files in one place.
    let clash = selection.files.array_windows().find(|[a, b]| a.name == b.name);
    if let Some([file, _]) = clash {
        return Err(SelectionError::Name { repo_id: repo_id(), name: file.name.clone() });
    }
    Ok(selection)
}

fn globs(patterns: &[String]) -> Result<GlobSet, SelectionError> {
    let refused = |pattern: &str| SelectionError::Glob(pattern.to_owned());
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        // A folder stands for what is in it.
        let whole = match pattern.ends_with('/') {
            true => format!("{pattern}*"),
            false => pattern.clone(),
        };
        let glob = GlobBuilder::new(&whole).literal_separator(false).build();
        set.add(glob.map_err(|_| refused(pattern))?);
    }
    set.build().map_err(|_| refused(&patterns.join(", ")))
}

/// Below one folder, on any system.
fn is_plain(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    name.len() <= PATH_BYTES_MAX - FOLDER_BYTES
        && parts.len() < DEPTH_MAX
        && parts.iter().all(|part| !matches!(*part, "" | "." | ".."))
        && !name.chars().any(|c| c.is_control() || matches!(c, '\\' | ':' | '\0'))
}

/// Whether reading the file runs code of its own; one that is named by its
/// ending is wanted all the same, and nothing here ever reads it.
fn brings_code(name: &str, checkpoints: &Checkpoints) -> bool {
    let lower = name.to_ascii_lowercase();
    CODE_ENDINGS.iter().any(|ending| {
        lower.ends_with(ending)
            && !checkpoints
                .allowed_file_patterns
                .iter()
                .any(|pattern| pattern.to_ascii_lowercase().ends_with(ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::checkpoint::Digest;
    use crate::package::config::CheckpointStage;

    fn checkpoints(allowed: &[&str], ignored: &[&str]) -> Checkpoints {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        Checkpoints {
            repo_id: "a/b".into(),
            hf_token: None,
            when: CheckpointStage::Upload,
            allowed_file_patterns: owned(allowed),
            ignore_file_patterns: owned(ignored),
        }
    }

    fn listed(names: &[&str]) -> Vec<LockedFile> {
        let digest = Digest::GitBlob("0".repeat(40));
        let file =
            |name: &&str| LockedFile { name: (*name).to_owned(), size: 1, digest: digest.clone() };
        names.iter().map(file).collect()
    }

    fn chosen(checkpoints: &Checkpoints, names: &[&str]) -> Vec<String> {
        let selection = select(checkpoints, listed(names)).unwrap();
        selection.files.into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn formats_that_run_code_are_left_out_unless_they_are_named() {
        let names = ["pytorch_model.bin", "x/model.onnx", "w.PT", ".gitattributes", "a.pkl"];
        assert_eq!(chosen(&checkpoints(&[], &[]), &names), ["x/model.onnx"]);
        assert_eq!(chosen(&checkpoints(&["*"], &[]), &names), ["x/model.onnx"]);
        assert_eq!(
            chosen(&checkpoints(&["*.bin", "*.onnx"], &[]), &names),
            ["pytorch_model.bin", "x/model.onnx"]
        );
        assert_eq!(select(&checkpoints(&[], &[]), listed(&names)).unwrap().code.len(), 3);
    }

    #[test]
    fn globs_choose_and_leave_out() {
        let names = ["config.json", "onnx/model.onnx", "onnx/model_fp16.onnx", "README.md"];
        assert_eq!(
            chosen(&checkpoints(&["*.onnx", "*.json"], &["*_fp16*"]), &names),
            ["config.json", "onnx/model.onnx"]
        );
        assert_eq!(chosen(&checkpoints(&["onnx/"], &[]), &names).len(), 2);
        let selection = select(&checkpoints(&["*.json"], &[]), listed(&names)).unwrap();
        assert_eq!(selection.onnx_left_out, 2);
        let refused = select(&checkpoints(&["["], &[]), listed(&names)).unwrap_err();
        assert!(refused.to_string().contains("is no glob"), "{refused}");
        assert_eq!(chosen(&checkpoints(&["none"], &[]), &names), [""; 0]);
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused_with_its_repository() {
        for name in
            ["../x", "a/../../x", "/etc/passwd", "a//b", "a\\b", "c:x", "a\nb", ".", "a/", ""]
        {
            let refused = select(&checkpoints(&[], &[]), listed(&["model.onnx", name]));
            assert!(matches!(refused, Err(SelectionError::Name { .. })), "{name:?}");
        }
        let long = "a".repeat(PATH_BYTES_MAX);
        assert!(select(&checkpoints(&[], &[]), listed(&[&long])).is_err());
        assert!(select(&checkpoints(&[], &[]), listed(&["a", "a"])).is_err());
        assert!(select(&checkpoints(&[], &[]), listed(&[&"a/".repeat(DEPTH_MAX)])).is_err());
    }

    #[test]
    fn more_than_a_package_holds_is_refused_before_it_is_fetched() {
        let mut files = listed(&["a.onnx", "b"]);
        files[1].size = PACKAGE_BYTES_MAX;
        let refused = select(&checkpoints(&[], &[]), files).unwrap_err();
        assert!(refused.to_string().contains("allowed_file_patterns"), "{refused}");
        let names: Vec<String> = (0..=ENTRIES_MAX).map(|index| format!("{index}.json")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(select(&checkpoints(&[], &[]), listed(&names)).is_err());
    }
}
