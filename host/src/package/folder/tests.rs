//! What of a model folder becomes a package, and what is refused.

use super::*;
use std::fs;
use tempfile::TempDir;

struct Folder {
    dir: TempDir,
    scratch: TempDir,
}

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self { dir: TempDir::new().unwrap(), scratch: TempDir::new().unwrap() };
        folder.put("config.yaml", "model: {id: m}\n").put("1/model.wasm", "wasm");
        for (name, content) in files {
            folder.put(name, content);
        }
        folder
    }

    fn put(&self, name: &str, content: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn open(&self) -> Result<Package, FolderError> {
        open(self.dir.path(), self.scratch.path(), Taking::Copy)
    }

    fn refused(&self) -> String {
        // What it would be otherwise is too long to be shown.
        let message = self.open().map(drop).unwrap_err().to_string();
        assert_eq!(
            fs::read_dir(self.scratch.path()).unwrap().count(),
            0,
            "something is left behind"
        );
        message
    }
}

#[test]
fn a_folder_is_taken_apart_into_component_graphs_and_assets() {
    let folder = Folder::new(&[
        ("Cargo.toml", "not read"),
        ("1/model.rs", "fn main() {}"),
        ("1/digits.onnx", "d"),
        ("1/deep/er/net.onnx", "n"),
        ("1/labels.txt", "zero\none\n"),
        ("1/deep/model.wasm", "an asset like any other"),
    ]);
    let package = folder.open().unwrap();
    assert_eq!(&package.component[..], b"wasm");
    let graphs: Vec<_> =
        package.graphs.iter().map(|g| (g.name.as_str(), g.content.read().unwrap())).collect();
    assert_eq!(graphs, [("deep/er/net", "n".into()), ("digits", "d".into())]);
    let assets: Vec<_> = package.assets.files.iter().map(|a| (a.name.as_str(), a.size)).collect();
    assert_eq!(assets, [("deep/model.wasm", 23), ("labels.txt", 9)]);
    assert_eq!(fs::read(package.assets.path().join("labels.txt")).unwrap(), b"zero\none\n");
    assert!(package.assets.path().starts_with(folder.scratch.path()));
    drop(package);
    assert_eq!(fs::read_dir(folder.scratch.path()).unwrap().count(), 0);
}

#[test]
fn the_version_is_that_of_the_content() {
    let files = [("1/a.txt", "1"), ("1/b.onnx", "2")];
    let first = Folder::new(&files).open().unwrap().version;
    assert_eq!(first.len(), 32);
    assert!(first.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
    assert_eq!(Folder::new(&[files[1], files[0]]).open().unwrap().version, first);
    assert_eq!(
        Folder::new(&[files[0], files[1], ("1/model.rs", "x"), ("Cargo.toml", "")])
            .open()
            .unwrap()
            .version,
        first
    );
    for changed in [
        vec![("1/a.txt", "2"), files[1]],
        vec![("1/c.txt", "1"), files[1]],
        vec![files[0]],
        vec![files[0], files[1], ("1/model.wasm", "other")],
        vec![files[0], files[1], ("config.yaml", "model: {id: n}\n")],
    ] {
        assert_ne!(Folder::new(&changed).open().unwrap().version, first, "{changed:?}");
    }
}

#[test]
fn graphs_are_renamed_and_left_out_as_config_says() {
    let config = |rules: &str| format!("model: {{id: m}}\nringfence: {{graphs: {{{rules}}}}}\n");
    let open = |rules: &str| {
        Folder::new(&[("1/a/x.onnx", "1"), ("1/y.onnx", "2"), ("config.yaml", &config(rules))])
            .open()
    };
    let names: Vec<_> =
        open("a/x: net, y: false").unwrap().graphs.into_iter().map(|g| g.name).collect();
    assert_eq!(names, ["net"]);
    assert!(open("z: net").unwrap_err().to_string().contains("there is no 1/z.onnx"));
    assert!(open("a/x: y").unwrap_err().to_string().contains("two graphs are called \"y\""));
}

#[test]
fn what_is_missing_is_named_with_what_to_do() {
    let folder = Folder::new(&[]);
    fs::remove_file(folder.path("1/model.wasm")).unwrap();
    let message = folder.refused();
    assert!(
        message.contains(&format!("run `ringfence build {}`", folder.dir.path().display())),
        "{message}"
    );
    fs::remove_dir(folder.path("1")).unwrap();
    assert!(folder.refused().starts_with("1 is missing"));
    fs::remove_file(folder.path("config.yaml")).unwrap();
    assert!(folder.refused().starts_with("config.yaml is missing"));
    let error = open(&folder.path("nowhere"), folder.scratch.path(), Taking::Copy).unwrap_err();
    assert!(error.to_string().starts_with("cannot open the model folder"));
}

/// FS-02: nothing outside of the folder is reached.
#[test]
fn links_and_special_files_are_refused_by_name() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("secret"), "canary").unwrap();
    for (name, target) in [
        ("1/link.txt", outside.path().join("secret")),
        ("1/folder", outside.path().to_owned()),
        ("1/net.onnx", PathBuf::from("model.wasm")),
        ("1/dangling", PathBuf::from("nowhere")),
    ] {
        let folder = Folder::new(&[]);
        std::os::unix::fs::symlink(target, folder.path(name)).unwrap();
        assert_eq!(
            folder.refused(),
            format!("{name} is a symbolic link; put the file itself there")
        );
    }
    for name in ["config.yaml", "1/model.wasm", "1"] {
        let folder = Folder::new(&[]);
        let moved = outside.path().join("moved").join(name.replace('/', "-"));
        fs::create_dir_all(moved.parent().unwrap()).unwrap();
        fs::rename(folder.path(name), &moved).unwrap();
        std::os::unix::fs::symlink(&moved, folder.path(name)).unwrap();
        assert!(folder.refused().contains("is a symbolic link"), "{name}");
    }
    let folder = Folder::new(&[]);
    let socket = std::os::unix::net::UnixListener::bind(folder.path("1/socket")).unwrap();
    assert!(folder.refused().starts_with("1/socket is neither a file nor a folder"));
    drop(socket);
}

#[test]
fn names_that_cannot_be_shown_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    for name in [&b"a\nb"[..], b"\x1b[2J", b"\xff\xfe"] {
        let folder = Folder::new(&[]);
        fs::write(folder.path("1").join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
        let message = folder.refused();
        assert!(message.contains("rename it") && !message.contains('\x1b'), "{message}");
    }
}

#[test]
fn caps_hold() {
    let folder = Folder::new(&[]);
    fs::File::create(folder.path("1/model.wasm"))
        .unwrap()
        .set_len(COMPONENT_BYTES_MAX + 1)
        .unwrap();
    assert!(folder.refused().starts_with("1/model.wasm has more than 67108864 bytes"));

    let folder = Folder::new(&[]);
    fs::File::create(folder.path("1/x.onnx")).unwrap().set_len(GRAPH_BYTES_MAX + 1).unwrap();
    assert!(folder.refused().starts_with("1/x.onnx has more than"));

    let folder = Folder::new(&[]);
    fs::File::create(folder.path("config.yaml"))
        .unwrap()
        .set_len(CONFIG_BYTES_MAX as u64 + 1)
        .unwrap();
    assert!(folder.refused().starts_with("config.yaml has more than"));

    let folder = Folder::new(&[]);
    fs::create_dir_all(folder.path(&format!("1/{}", "d/".repeat(DEPTH_MAX + 1)))).unwrap();
    assert!(folder.refused().contains("folders deep"));

    let folder = Folder::new(&[]);
    for n in 0..ENTRIES_MAX {
        fs::File::create(folder.path(&format!("1/{n}"))).unwrap();
    }
    assert!(folder.refused().starts_with("there are more than 4096"));

    let folder = Folder::new(&[(&format!("1/{0}/{0}/{0}", "n".repeat(200)), "x")]);
    assert!(folder.refused().contains("rename it"));
}

#[test]
fn more_graphs_than_a_replica_opens_are_refused() {
    let graphs: Vec<(String, &str)> =
        (0..=GRAPHS_MAX).map(|number| (format!("1/{number}.onnx"), "g")).collect();
    let with = |count: usize| {
        let files: Vec<(&str, &str)> =
            graphs.iter().take(count).map(|(path, content)| (path.as_str(), *content)).collect();
        Folder::new(&files).open().map(|package| package.graphs.len())
    };
    assert_eq!(with(GRAPHS_MAX).unwrap(), GRAPHS_MAX);
    assert!(matches!(with(GRAPHS_MAX + 1), Err(FolderError::TooManyGraphs)));
}

#[test]
fn a_config_that_is_no_text_is_refused() {
    let folder = Folder::new(&[]);
    fs::write(folder.path("config.yaml"), b"model: {id: \xff}").unwrap();
    assert_eq!(folder.refused(), "config.yaml is not UTF-8; save it as UTF-8");
}
