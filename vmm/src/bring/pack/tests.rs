// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

const LIMIT: Limit = Limit { bytes: 64 << 20, reason: "more than the test allows" };

fn add(paths: &[&Path]) -> Result<Contents, PackError> {
    let contents = Contents::default();
    let mut packer = Packer::new(&contents, LIMIT);
    for path in paths {
        packer.add(&Addition::parse(path.to_str().unwrap()).unwrap())?;
    }
    let mut added = Contents::default();
    added.add(&packer.finish()?.to_bytes()?);
    Ok(added)
}

fn has(contents: &Contents, path: &str) -> bool {
    contents.at(Path::new(path)).is_some()
}

#[test]
fn a_folder_comes_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
    fs::write(tree.join("a/b/file"), "x").unwrap();
    symlink("../b/file", tree.join("a/b/link")).unwrap();
    symlink("a", tree.join("up")).unwrap();
    let added = add(&[&tree]).unwrap();
    for path in ["/tree/a/b/file", "/tree/a/b/link", "/tree/up", "/tree/empty"] {
        assert!(has(&added, path), "{path}");
    }
}

#[test]
fn a_program_comes_with_its_libraries_and_a_script_with_its_interpreter() {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new("/usr/bin/env");
    let script = folder.path().join("script");
    fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let added = add(&[&script]).unwrap();
    assert!(has(&added, "/usr/local/bin/script") && has(&added, program.to_str().unwrap()));
    assert!(has(&added, "/lib64/ld-linux-x86-64.so.2"));
    // Both need the same libraries.
    assert!(has(&add(&[&script, program]).unwrap(), "/lib64/ld-linux-x86-64.so.2"));
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    let error = add(&[&script]).unwrap_err();
    assert!(error.to_string().contains("/no/such/interpreter"), "{error}");
}

#[test]
fn nothing_outside_of_a_folder_is_reached() {
    for target in ["/etc/passwd", "..", "../x", "a/../../x"] {
        let folder = tempfile::tempdir().unwrap();
        symlink(target, folder.path().join("link")).unwrap();
        let error = add(&[folder.path()]).unwrap_err();
        assert!(matches!(&error, PackError::LinkOut { .. }), "{target}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    let error = add(&[folder.path()]).unwrap_err();
    assert!(error.to_string().contains("a socket"), "{error}");
}

#[test]
fn too_much_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let error = add(&[&path]).unwrap_err();
    assert!(error.to_string().contains("64M"), "{error}");
}
