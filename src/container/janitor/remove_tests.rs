use std::os::unix::fs::symlink;

use rustix::mount::{MountFlags, mount as mount_at};

use super::*;

fn known(path: &Path) -> Option<Identity> {
    let found = fs::symlink_metadata(path).unwrap();
    Some(Identity {
        device: found.dev(),
        inode: found.ino(),
    })
}

#[test]
fn n_03_only_the_very_directory_goes() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("upper");
    fs::create_dir(&path).unwrap();
    let identity = known(&path);
    // Kept, so that the file system cannot give its number to the next.
    fs::rename(&path, home.path().join("moved")).unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("foreign"), "x").unwrap();
    assert_eq!(directory(&path, identity).unwrap(), Removed::Foreign);
    assert!(path.join("foreign").exists());

    fs::remove_file(path.join("foreign")).unwrap();
    fs::remove_dir(&path).unwrap();
    assert_eq!(directory(&path, identity).unwrap(), Removed::Gone);
    symlink(home.path().join("moved"), &path).unwrap();
    assert_eq!(directory(&path, identity).unwrap(), Removed::Foreign);
    assert!(home.path().join("moved").exists());
}

#[test]
fn n_03_what_was_only_announced_goes_if_it_is_empty() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("upper");
    assert_eq!(directory(&path, None).unwrap(), Removed::Gone);
    fs::create_dir(&path).unwrap();
    fs::write(path.join("foreign"), "x").unwrap();
    assert_eq!(directory(&path, None).unwrap(), Removed::Foreign);
    fs::remove_file(path.join("foreign")).unwrap();
    assert_eq!(directory(&path, None).unwrap(), Removed::Now);
    assert!(!path.exists());
}

#[test]
fn trees_go_however_deep_and_links_are_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let outside = home.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let path = home.path().join("upper");
    fs::create_dir(&path).unwrap();
    fs::create_dir(path.join(".podling-0")).unwrap();
    fs::write(path.join(".podling-0/x"), "").unwrap();
    symlink(&outside, path.join("link")).unwrap();
    // Deeper than a path may be long, as a member can make it.
    let mut at = rustix::fs::open(&path, DIRECTORY, Mode::empty()).unwrap();
    let name = "d".repeat(200);
    for _ in 0..50 {
        rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
        rustix::fs::symlinkat("/", &at, "root").unwrap();
        at = openat(&at, &name, DIRECTORY, Mode::empty()).unwrap();
    }
    drop(at);
    assert_eq!(directory(&path, known(&path)).unwrap(), Removed::Now);
    assert!(!path.exists());
    assert!(outside.join("kept").exists());
}

#[test]
fn n_03_files_go_by_identity() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("socket");
    fs::write(&path, "").unwrap();
    let identity = known(&path);
    fs::rename(&path, home.path().join("moved")).unwrap();
    fs::write(&path, "foreign").unwrap();
    assert_eq!(file(&path, identity).unwrap(), Removed::Foreign);
    assert_eq!(file(&path, None).unwrap(), Removed::Foreign);
    assert_eq!(file(&path, known(&path)).unwrap(), Removed::Now);
    assert_eq!(file(&path, identity).unwrap(), Removed::Gone);
}

/// Mounts for a test, off again at its end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn at(path: PathBuf) -> Tmpfs {
        fs::create_dir_all(&path).unwrap();
        mount_at("podling-test", &path, "tmpfs", MountFlags::empty(), None).unwrap();
        Tmpfs(path)
    }

    fn device(&self) -> String {
        let all = mounts().unwrap();
        all.iter()
            .rfind(|mounted| mounted.target == self.0)
            .unwrap()
            .device
            .clone()
    }

    fn is_mounted(&self) -> bool {
        mounts().unwrap().iter().any(|mounted| mounted.target == self.0)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn n_03_mounts_go_by_the_file_system_on_them() {
    let home = tempfile::tempdir().unwrap();
    let ours = Tmpfs::at(home.path().join("ours"));
    let foreign = Tmpfs::at(home.path().join("ours-too"));
    assert_eq!(mount(&foreign.0, Some(&ours.device())).unwrap(), Removed::Foreign);
    assert_eq!(mount(&foreign.0, None).unwrap(), Removed::Foreign);
    assert!(foreign.is_mounted());
    assert_eq!(mount(&ours.0, Some(&ours.device())).unwrap(), Removed::Now);
    assert!(!ours.is_mounted());
    assert_eq!(mount(&ours.0, Some("0:1")).unwrap(), Removed::Gone);
}

#[test]
fn what_is_mounted_inside_our_directory_is_taken_off_and_its_files_stay() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("bundle");
    let inside = Tmpfs::at(path.join("rootfs"));
    let nested = Tmpfs::at(path.join("rootfs/tmp"));
    let shared = home.path().join("volume");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("kept"), "x").unwrap();
    let target = path.join("rootfs/volume");
    fs::create_dir(&target).unwrap();
    mount_at(&shared, &target, "", MountFlags::BIND, None).unwrap();
    let look_alike = Tmpfs::at(home.path().join("bundle2"));
    assert_eq!(directory(&path, known(&path)).unwrap(), Removed::Now);
    assert!(!inside.is_mounted() && !nested.is_mounted() && !path.exists());
    assert!(look_alike.is_mounted());
    assert!(shared.join("kept").exists());
}
