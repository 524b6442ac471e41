//! A data directory with many models in it, written as uploads would.

use ringfence::package::config::ModelName;
use ringfence::package::folder::{self, Taking};
use ringfence::store::{Store, VersionFile, VersionRow, now};
use std::fs::File;
use std::path::Path;
use tempfile::TempDir;

/// What a data directory was filled with.
#[derive(Debug)]
pub struct Filled {
    /// Ids of the models of `local/main`, in the order in which they came.
    pub models: Vec<String>,
}

/// Puts so many models of one version each into a data directory that a host has
/// made, all with the contents of one folder.
pub fn fill(data_dir: &Path, folder: &str, count: usize) -> Filled {
    let scratch = TempDir::new().unwrap();
    let package = folder::open(Path::new(folder), scratch.path(), Taking::Copy).unwrap();
    let store = Store::open(data_dir).unwrap();
    store.ensure_app(ModelName::USER_DEFAULT, ModelName::APP_DEFAULT).unwrap();
    let mut models = Vec::with_capacity(count);
    for number in 0..count {
        let id = format!("model-{number:05}");
        let name = ModelName::new(ModelName::USER_DEFAULT, ModelName::APP_DEFAULT, &id).unwrap();
        store.ensure_model(&name, &package.config.model_type_id).unwrap();
        let version = VersionRow {
            name,
            id: package.version.clone(),
            number: 0,
            created_at: now(),
            model_type_id: package.config.model_type_id.clone(),
            concepts: 0,
            methods: "[]".to_owned(),
            bytes: package.listing.iter().map(|file| file.bytes).sum(),
        };
        let file = |file: &ringfence::package::ListedFile| VersionFile {
            path: file.path.clone(),
            sha256: file.sha256,
            bytes: file.bytes,
            content: File::open(Path::new(folder).join(&file.path)).unwrap(),
        };
        let mut files: Vec<VersionFile> = package.listing.iter().map(file).collect();
        store.add_version(&version, &mut files).unwrap();
        models.push(id);
    }
    Filled { models }
}
