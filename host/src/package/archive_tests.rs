//! Archives as clients send them, and as attackers do.

use super::*;
use cap_std::ambient_authority;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use tar::Builder;

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o6777);
    header.set_cksum();
    header
}

/// An entry whose name is taken as it is, whatever it says.
fn put(tar: &mut Builder<Vec<u8>>, kind: EntryType, name: &str, bytes: &[u8]) {
    let mut header = header(kind, bytes.len() as u64);
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, bytes).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn packed(build: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    build(&mut tar);
    gzip(&tar.into_inner().unwrap())
}

fn unpacked(archive: &[u8]) -> (Result<Unpacked, ArchiveError>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let dir = Dir::open_ambient_dir(folder.path(), ambient_authority()).unwrap();
    let wanted = |path: &str| path == "config.yaml" || path.starts_with("1/");
    (unpack(archive, &dir, wanted), folder)
}

fn refused(archive: &[u8]) -> String {
    let (result, folder) = unpacked(archive);
    let outside = folder.path().parent().unwrap().join("escaped");
    assert!(!outside.exists());
    result.unwrap_err().to_string()
}

#[test]
fn what_the_sdk_sends_is_taken_and_its_sources_are_skipped() {
    let long = format!("1/{}/weights.onnx", "long".repeat(30));
    let archive = packed(|tar| {
        put(tar, EntryType::Directory, "./", b"");
        put(tar, EntryType::Regular, "./config.yaml", b"model: {id: m}");
        put(tar, EntryType::Regular, "./requirements.txt", b"clarifai");
        put(tar, EntryType::Directory, "./1/", b"");
        put(tar, EntryType::Regular, "./1/model.wasm", b"wasm");
        // Python writes times that are no whole seconds, and long names, as pax.
        let record = format!("path={long}\n");
        let length = record.len() + 4;
        put(tar, EntryType::XHeader, "pax", format!("{length} {record}").as_bytes());
        put(tar, EntryType::Regular, "short", b"onnx");
    });
    let (result, folder) = unpacked(&archive);
    assert_eq!(result.unwrap(), Unpacked { files: 3, bytes: 22, skipped: 1 });
    assert_eq!(std::fs::read(folder.path().join("1/model.wasm")).unwrap(), b"wasm");
    assert_eq!(std::fs::read(folder.path().join(long)).unwrap(), b"onnx");
    assert!(!folder.path().join("requirements.txt").exists());
}

#[test]
fn pkg_12_what_is_no_file_and_no_folder_is_refused_by_its_name() {
    for (kind, word) in [
        (EntryType::Symlink, "symbolic link"),
        (EntryType::Link, "hard link"),
        (EntryType::Char, "device"),
        (EntryType::Block, "device"),
        (EntryType::Fifo, "pipe"),
        (EntryType::GNUSparse, "sparse file"),
        (EntryType::new(b'Z'), "unknown kind"),
    ] {
        let told = refused(&packed(|tar| put(tar, kind, "1/x", b"")));
        assert!(told.contains("1/x is a") && told.contains(word), "{told}");
    }
}

#[test]
fn pkg_12_names_that_lead_elsewhere_are_refused() {
    for name in
        ["../escaped", "/tmp/escaped", "1/../../escaped", "1/a\nb", "1\\..\\x", "./..", ".."]
    {
        let told = refused(&packed(|tar| put(tar, EntryType::Regular, name, b"x")));
        assert!(told.contains("an entry is called"), "{name:?}: {told}");
    }
    let deep = "1/".repeat(DEPTH_MAX + 3);
    let told = refused(&packed(|tar| put(tar, EntryType::Regular, &format!("{deep}x"), b"x")));
    assert!(told.contains("an entry is called"), "{told}");
    let record = format!("path=1/{}\n", "x".repeat(PATH_BYTES_MAX));
    let record = format!("{} {record}", record.len() + 4);
    let told = refused(&packed(|tar| {
        put(tar, EntryType::XHeader, "pax", record.as_bytes());
        put(tar, EntryType::Regular, "short", b"x");
    }));
    assert!(told.contains("an entry is called"), "{told}");
}

#[test]
fn pkg_12_the_same_file_twice_is_refused() {
    let archive = packed(|tar| {
        put(tar, EntryType::Regular, "1/x", b"a");
        put(tar, EntryType::Regular, "./1//x", b"b");
    });
    assert!(refused(&archive).contains("1/x is in the archive twice"));
}

#[test]
fn pkg_12_a_header_that_says_another_length_is_refused() {
    let archive = packed(|tar| {
        put(tar, EntryType::XHeader, "pax", b"12 size=999\n");
        put(tar, EntryType::Regular, "1/x", b"a");
    });
    assert!(refused(&archive).contains("two lengths"));
    let sparse = packed(|tar| put(tar, EntryType::XHeader, "pax", b"22 GNU.sparse.major=1\n"));
    assert!(refused(&sparse).contains("sparse file"));
    let long = vec![b' '; (EXTENSION_BYTES_MAX + 1) as usize];
    let long = packed(|tar| put(tar, EntryType::XHeader, "pax", &long));
    assert!(refused(&long).contains("too long"));
}

#[test]
fn pkg_12_more_entries_than_a_package_has_are_refused() {
    let archive = packed(|tar| {
        for _ in 0..=ENTRIES_MAX {
            put(tar, EntryType::Directory, "1", b"");
        }
    });
    assert!(refused(&archive).contains("more than 20000 entries"));
}

#[test]
fn pkg_13_a_bomb_is_refused_as_it_unpacks() {
    let zeros = vec![0; (RATIO_FREE_BYTES * 2) as usize];
    let told = refused(&packed(|tar| put(tar, EntryType::Regular, "1/x", &zeros)));
    assert!(told.contains("100 times what was sent"), "{told}");
    let (result, _folder) =
        unpacked(&packed(|tar| put(tar, EntryType::Regular, "1/x", &zeros[..1 << 20])));
    assert_eq!(result.unwrap().bytes, 1 << 20, "a small one is none");
}

#[test]
fn what_follows_an_archive_or_is_missing_of_it_is_refused() {
    let whole = packed(|tar| put(tar, EntryType::Regular, "1/x", b"a"));
    let mut more = whole.clone();
    more.extend(&whole);
    assert!(refused(&more).contains("something follows"));
    let mut more = whole.clone();
    more.push(0);
    assert!(refused(&more).contains("something follows"));
    let mut tar = Builder::new(Vec::new());
    put(&mut tar, EntryType::Regular, "1/x", b"a");
    let mut bytes = tar.into_inner().unwrap();
    bytes.extend(vec![7; 512]);
    assert!(refused(&gzip(&bytes)).contains("something follows"));
    for archive in [&whole[..whole.len() - 9], &whole[..20], b"", b"PK\x03\x04", &bytes] {
        assert!(refused(archive).contains("no gzip of a tar"), "{archive:?}");
    }
}

/// PKG-13: the absolute cap, of an archive that is as large as it says.
#[test]
fn pkg_13_more_bytes_than_a_package_has_are_refused() {
    let archive = packed(|tar| put(tar, EntryType::Regular, "1/x", b"a"));
    let mut limited = Limited {
        decoder: GzDecoder::new(Counted::new(archive.as_slice())),
        bytes: PACKAGE_BYTES_MAX,
    };
    limited.decoder.get_mut().bytes = PACKAGE_BYTES_MAX;
    let error = limited.read(&mut [0]).unwrap_err();
    assert!(format_error(error).to_string().contains("more than 17179869184 bytes"));
    limited.bytes = PACKAGE_BYTES_MAX - 1;
    assert_eq!(limited.read(&mut [0]).unwrap(), 1);
}
