use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A directory as kubelet lays a volume out and swaps it (its `AtomicWriter`).
struct Volume {
    dir: PathBuf,
    versions: u32,
}

impl Volume {
    fn new(dir: &Path) -> Self {
        fs::create_dir_all(dir).unwrap();
        Self { dir: dir.to_owned(), versions: 0 }
    }

    fn swap(&mut self, files: &[(&str, &str)]) {
        self.versions += 1;
        let stamp = format!("..2026_{}", self.versions);
        fs::create_dir(self.dir.join(&stamp)).unwrap();
        for (name, content) in files {
            fs::write(self.dir.join(&stamp).join(name), content).unwrap();
        }
        let old = fs::read_link(self.dir.join("..data")).ok();
        symlink(&stamp, self.dir.join("..data_tmp")).unwrap();
        fs::rename(self.dir.join("..data_tmp"), self.dir.join("..data")).unwrap();
        for (name, _) in files {
            let _ = symlink(Path::new("..data").join(name), self.dir.join(name));
        }
        for entry in fs::read_dir(&self.dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !name.starts_with("..") && !files.iter().any(|(kept, _)| *kept == name) {
                fs::remove_file(self.dir.join(name)).unwrap();
            }
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.join(old)).unwrap();
        }
    }
}

/// Inotify alone: the comparison is too far off to help.
fn watch(dirs: &[&Path]) -> Watch {
    let dirs: Vec<PathBuf> = dirs.iter().map(|dir| dir.to_path_buf()).collect();
    let watch = Watch::with_interval(&dirs, Duration::from_secs(600));
    assert!(watch.fd().is_some());
    watch
}

/// Long enough for a machine under load; an event ends the wait.
const SOON: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(15);

fn calm(watch: &mut Watch) {
    while !watch.wait(SILENCE).unwrap().is_empty() {}
}

fn policy(dir: &Path) -> Option<(String, String)> {
    let names = fs::read_dir(dir).ok()?.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let json =
        |name: &String| Path::new(name).extension().is_some_and(|e| e == "json") && !name.starts_with('.');
    let name = names.filter(json).min()?;
    let content = fs::read_to_string(dir.join(&name)).ok()?;
    Some((name, content))
}

#[allow(clippy::unnecessary_wraps)] // Compared with an optional value.
fn file(name: &str, content: &str) -> Option<(String, String)> {
    Some((name.to_owned(), content.to_owned()))
}

#[test]
fn a_kubelet_swap_is_told_of_at_once_and_once() {
    let root = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(root.path());
    volume.swap(&[("inference-policy.json", "1")]);
    let mut watch = watch(&[root.path()]);
    let mut quickest = SOON;
    for content in ["2", "3", "4", "5"] {
        volume.swap(&[("inference-policy.json", content)]);
        let started = Instant::now();
        assert_eq!(watch.wait(SOON).unwrap(), [0]);
        quickest = quickest.min(started.elapsed());
        assert_eq!(policy(root.path()), file("inference-policy.json", content));
        assert!(watch.wait(SILENCE).unwrap().is_empty());
    }
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

#[test]
fn a_waiting_thread_wakes_for_a_swap() {
    let root = tempfile::tempdir().unwrap();
    let mut volume = Volume::new(root.path());
    volume.swap(&[("p.json", "1")]);
    let mut watch = watch(&[root.path()]);
    let waiter = std::thread::spawn(move || watch.wait(Duration::from_secs(30)).unwrap());
    std::thread::sleep(Duration::from_millis(20));
    volume.swap(&[("p.json", "2")]);
    assert_eq!(waiter.join().unwrap(), [0]);
}

#[test]
fn kubelets_preparations_are_not_told_of() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = watch(&[root.path()]);
    fs::create_dir(root.path().join("..2026_1")).unwrap();
    fs::write(root.path().join(".p.json.swp"), "x").unwrap();
    symlink("..2026_1", root.path().join("..data_tmp")).unwrap();
    assert!(watch.wait(SILENCE).unwrap().is_empty());
}

#[test]
fn plain_writes_renames_links_and_removals_are_told_of() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let mut watch = watch(&[root.path()]);
    let mut told = |what: &str, change: &dyn Fn()| {
        change();
        assert_eq!(watch.wait(SOON).unwrap(), [0], "{what}");
        calm(&mut watch);
    };
    told("write", &|| fs::write(path("a.json"), "1").unwrap());
    told("overwrite", &|| fs::write(path("a.json"), "2").unwrap());
    told("rename", &|| fs::rename(path("a.json"), path("b.json")).unwrap());
    fs::write(outside.path().join("c.json"), "3").unwrap();
    told("move in", &|| fs::rename(outside.path().join("c.json"), path("b.json")).unwrap());
    told("hard link", &|| fs::hard_link(path("b.json"), path("d.json")).unwrap());
    told("symbolic link", &|| symlink("b.json", path("e.json")).unwrap());
    told("removal", &|| fs::remove_file(path("b.json")).unwrap());
}

#[test]
fn a_file_is_told_of_when_it_is_whole() {
    use std::io::Write as _;
    let root = tempfile::tempdir().unwrap();
    let mut watch = watch(&[root.path()]);
    let mut file = fs::File::create(root.path().join("p.json")).unwrap();
    file.write_all(b"{").unwrap();
    assert!(watch.wait(SILENCE).unwrap().is_empty());
    file.write_all(b"}").unwrap();
    drop(file);
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
}

#[test]
fn a_burst_is_told_of_once() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = watch(&[root.path()]);
    for n in 0..200 {
        fs::write(root.path().join(format!("{n}.json")), "x").unwrap();
    }
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
    assert!(watch.wait(SILENCE).unwrap().is_empty());
}

#[test]
fn a_directory_that_appears_later_is_told_of_at_any_depth() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("etc/kars/inference");
    let mut watch = watch(&[&dir]);
    fs::create_dir(root.path().join("other")).unwrap();
    assert!(watch.wait(SILENCE).unwrap().is_empty());
    fs::create_dir(root.path().join("etc")).unwrap();
    calm(&mut watch);
    fs::create_dir_all(&dir).unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
    calm(&mut watch);
    fs::write(dir.join("p.json"), "1").unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
    assert_eq!(policy(&dir), file("p.json", "1"));
}

#[test]
fn a_directory_made_whole_in_one_go_is_told_of() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    let mut watch = watch(&[&dir]);
    Volume::new(&dir).swap(&[("p.json", "1")]);
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
    calm(&mut watch);
    fs::write(dir.join("q.json"), "").unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
}

#[test]
fn a_directory_removed_and_made_again_stays_watched() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("inference");
    Volume::new(&dir).swap(&[("p.json", "1")]);
    let mut watch = watch(&[&dir]);
    for round in 0..3 {
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(watch.wait(SOON).unwrap(), [0], "removal {round}");
        calm(&mut watch);
        assert_eq!(policy(&dir), None);
        let mut volume = Volume::new(&dir);
        volume.swap(&[("p.json", "1")]);
        assert_eq!(watch.wait(SOON).unwrap(), [0], "return {round}");
        calm(&mut watch);
        volume.swap(&[("p.json", "2")]);
        assert_eq!(watch.wait(SOON).unwrap(), [0], "swap {round}");
        calm(&mut watch);
    }
}

#[test]
fn a_directory_that_is_renamed_away_is_told_of() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("inference");
    fs::create_dir(&dir).unwrap();
    let mut watch = watch(&[&dir]);
    fs::rename(&dir, root.path().join("gone")).unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [0]);
    calm(&mut watch);
    fs::write(root.path().join("gone/p.json"), "1").unwrap();
    assert!(watch.wait(SILENCE).unwrap().is_empty());
}

#[test]
fn each_directory_is_told_of_by_its_own_index() {
    let root = tempfile::tempdir().unwrap();
    let dirs = ["a", "a/nested", "b"].map(|name| root.path().join(name));
    fs::create_dir_all(&dirs[1]).unwrap();
    let mut watch = watch(&[&dirs[0], &dirs[1], &dirs[2]]);
    fs::write(dirs[1].join("p.json"), "1").unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [1]);
    fs::create_dir(&dirs[2]).unwrap();
    fs::write(dirs[0].join("p.json"), "1").unwrap();
    assert_eq!(watch.wait(SOON).unwrap(), [0, 2]);
}

#[test]
fn comparison_finds_what_inotify_does_not_tell() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("real.json");
    fs::write(&target, "1").unwrap();
    symlink(&target, root.path().join("p.json")).unwrap();
    let mut watch = Watch::with_interval(&[root.path().to_owned()], Duration::ZERO);
    assert!(watch.wait(Duration::from_millis(120)).unwrap().is_empty());
    fs::write(&target, "22").unwrap();
    assert_eq!(watch.wait(Duration::from_secs(2)).unwrap(), [0]);
    assert!(watch.wait(Duration::from_millis(120)).unwrap().is_empty());
}

#[test]
fn without_inotify_comparison_alone_does() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("inference");
    let mut watch = Watch::with_interval(std::slice::from_ref(&dir), Duration::ZERO);
    watch.inotify = None;
    let mut volume = Volume::new(&dir);
    assert_eq!(watch.wait(Duration::from_secs(2)).unwrap(), [0]);
    volume.swap(&[("p.json", "1")]);
    assert_eq!(watch.wait(Duration::from_secs(2)).unwrap(), [0]);
    volume.swap(&[("p.json", "2")]);
    assert_eq!(watch.wait(Duration::from_secs(2)).unwrap(), [0]);
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(watch.wait(Duration::from_secs(2)).unwrap(), [0]);
}

#[test]
fn reads_the_first_json_by_name_and_no_hidden_one() {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str| fs::write(root.path().join(name), name).unwrap();
    assert_eq!(policy(root.path()), None);
    assert_eq!(policy(&root.path().join("absent")), None);
    ["z.json", ".a.json", "a.yaml", "b.json"].into_iter().for_each(write);
    assert_eq!(policy(root.path()), file("b.json", "b.json"));
}

#[test]
fn an_idle_watch_sleeps() {
    let root = tempfile::tempdir().unwrap();
    let mut watch = Watch::with_interval(&[root.path().to_owned()], Duration::ZERO);
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap()
    };
    let before = used();
    assert!(watch.wait(Duration::from_millis(200)).unwrap().is_empty());
    assert!(used().saturating_sub(before) < Duration::from_millis(100));
}
