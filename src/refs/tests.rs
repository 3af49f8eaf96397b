#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::switch::{FIRST, REPLACE, Step};
use super::*;
use crate::error::{Error, Refusal};
use crate::fsys::Kind;
use crate::test_vectors::vector;

const SOON: Duration = Duration::from_secs(10);

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

/// A store's links and the directories `v1` to `v4`.
struct Fixture {
    top: PathBuf,
    refs: Refs,
    _temporary: Option<tempfile::TempDir>,
}

impl Fixture {
    fn at(top: &Path, links: &[(&str, &str)]) -> Self {
        let versions = top.join("versions");
        for version in ["v1", "v2", "v3", "v4"] {
            std::fs::create_dir_all(versions.join(version)).unwrap();
        }
        std::fs::create_dir_all(top.join("store")).unwrap();
        for (link, target) in links {
            symlink(target.replace("TOP", top.to_str().unwrap()), versions.join(link)).unwrap();
        }
        let store = Dir::open(top.join("store")).unwrap();
        let refs = Refs::new(Dir::open(&versions).unwrap(), store, &Layout::new(top, None));
        Self { top: top.to_owned(), refs, _temporary: None }
    }

    fn new(links: &[(&str, &str)]) -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let top = temporary.path().canonicalize().unwrap();
        Self { _temporary: Some(temporary), ..Self::at(&top, links) }
    }

    fn lock(&self) -> LockedRefs<'_> {
        self.refs.lock(SOON).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.join("versions").join(name)
    }

    /// All links with their targets.
    fn links(&self) -> Vec<(String, String)> {
        let items = self.refs.versions.items().unwrap().into_iter();
        items
            .filter(|item| item.kind == Kind::Symlink)
            .map(|item| {
                let target = self.refs.versions.read_link(&item.name).unwrap();
                (item.name.to_string(), String::from_utf8(target).unwrap())
            })
            .collect()
    }

    fn assert_links(&self, expected: &[(&str, &str)]) {
        let found = self.links();
        let found: Vec<(&str, &str)> = found.iter().map(|(name, target)| (&**name, &**target)).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn every_spelling_by_hand_is_understood() {
    let version = |spelling| RoleLink::Version { version: name("v1"), spelling };
    let roundabout = |target: &str| version(Spelling::Roundabout { target: target.into() });
    let fixture = Fixture::new(&[("factory", "v1"), ("stable", "v1"), ("away", "/"), ("alias", "factory")]);
    std::fs::create_dir_all(fixture.path(".hidden")).unwrap();
    std::fs::create_dir_all(fixture.path("1.0")).unwrap();
    std::fs::write(fixture.path("README"), "").unwrap();
    let top = fixture.top.to_str().unwrap();
    let absolute = format!("{top}/versions/v1");
    let absolute_role = format!("{top}/versions/factory");
    for (target, expected) in [
        ("v1", version(Spelling::Plain)),
        ("v1/", roundabout("v1/")),
        ("./v1", roundabout("./v1")),
        ("v1//./", roundabout("v1//./")),
        ("../versions/v1", roundabout("../versions/v1")),
        ("v2/../v1", roundabout("v2/../v1")),
        ("stable", roundabout("stable")),
        (&absolute, roundabout(&absolute)),
        ("factory", version(Spelling::Through(Role::Factory))),
        ("factory/", version(Spelling::Through(Role::Factory))),
        ("alias", version(Spelling::Through(Role::Factory))),
        (&absolute_role, version(Spelling::Through(Role::Factory))),
        ("v9", RoleLink::Dangling { target: b"v9".into() }),
        ("current", RoleLink::Dangling { target: b"current".into() }),
        ("previous", RoleLink::Dangling { target: b"previous".into() }),
        ("away", RoleLink::Foreign { target: b"away".into() }),
        ("/etc", RoleLink::Foreign { target: b"/etc".into() }),
        ("/nowhere/v1", RoleLink::Foreign { target: b"/nowhere/v1".into() }),
        ("..", RoleLink::Foreign { target: b"..".into() }),
        (".", RoleLink::Foreign { target: b".".into() }),
        ("/", RoleLink::Foreign { target: b"/".into() }),
        ("v1/etc", RoleLink::Foreign { target: b"v1/etc".into() }),
        (".hidden", RoleLink::Foreign { target: b".hidden".into() }),
        ("1.0", RoleLink::Foreign { target: b"1.0".into() }),
        ("README", RoleLink::Foreign { target: b"README".into() }),
    ] {
        symlink(target, fixture.path("current")).unwrap();
        assert_eq!(fixture.refs.read().unwrap().current, expected, "{target}");
        std::fs::remove_file(fixture.path("current")).unwrap();
    }
    std::fs::create_dir(fixture.path("current")).unwrap();
    let roles = fixture.refs.read().unwrap();
    assert_eq!((roles.current, roles.previous), (RoleLink::NotALink(Kind::Directory), RoleLink::Absent));
    assert_eq!(fixture.refs.read().unwrap().of(&name("v1")), [Role::Factory]);
}

/// The table of spellings in the specification, line by line.
#[test]
fn links_mean_what_the_specification_says() {
    let temporary = tempfile::tempdir().unwrap();
    let image = temporary.path().canonicalize().unwrap();
    let top = image.join("opt/tope");
    let fixture = Fixture::at(&top, &[("factory", "v1"), ("stable", "v2")]);
    let dir = |name: &str| Dir::open(top.join(name)).unwrap();
    let refs = Refs::new(dir("versions"), dir("store"), &Layout::new("/opt/tope", Some(image)));
    for line in vector("links").lines() {
        let (target, meaning) = line.split_once(" => ").unwrap();
        symlink(target, fixture.path("current")).unwrap();
        let found = match refs.read().unwrap().current {
            RoleLink::Version { version, spelling: Spelling::Plain } => format!("{version}"),
            RoleLink::Version { version, spelling: Spelling::Roundabout { .. } } => format!("{version} (roundabout)"),
            RoleLink::Version { version, spelling: Spelling::Through(role) } => format!("{version} (through {role})"),
            RoleLink::Dangling { .. } => "dangling".into(),
            RoleLink::Foreign { .. } => "foreign".into(),
            other => format!("{other:?}"),
        };
        assert_eq!(found, meaning, "{target}");
        std::fs::remove_file(fixture.path("current")).unwrap();
    }
}

#[test]
fn absolute_links_in_an_image_are_those_of_the_device() {
    let temporary = tempfile::tempdir().unwrap();
    let image = temporary.path().canonicalize().unwrap();
    let top = image.join("opt/tope");
    std::fs::create_dir_all(&top).unwrap();
    let on_host = top.join("versions/v2");
    let links = [("current", "/opt/tope/versions/v1"), ("previous", on_host.to_str().unwrap())];
    let fixture = Fixture::at(&top, &links);
    let dir = |name: &str| Dir::open(top.join(name)).unwrap();
    let refs = Refs::new(dir("versions"), dir("store"), &Layout::new("/opt/tope", Some(image)));
    let roles = refs.read().unwrap();
    assert_eq!(roles.version(Role::Current), Some(&name("v1")));
    // On the device there is no such path.
    assert_eq!(roles.version(Role::Previous), None);
    assert_eq!(refs.lock(SOON).unwrap().activate(&name("v3")).unwrap().from, Some(name("v1")));
    fixture.assert_links(&[("current", "v3"), ("previous", "v1")]);
}

#[test]
fn activation_moves_current_to_previous() {
    let fixture = Fixture::new(&[]);
    let locked = fixture.lock();
    let first = locked.activate(&name("v1")).unwrap();
    assert_eq!((&first.from, first.changed), (&None, true));
    fixture.assert_links(&[("current", "v1")]);
    let second = locked.activate(&name("v2")).unwrap();
    assert_eq!((&second.from, &second.to, second.changed), (&Some(name("v1")), &name("v2"), true));
    fixture.assert_links(&[("current", "v2"), ("previous", "v1")]);
    let before = std::fs::symlink_metadata(fixture.path("current")).unwrap();
    let same = locked.activate(&name("v2")).unwrap();
    assert_eq!((&same.from, same.changed, &*same.respelt), (&Some(name("v2")), false, &[][..]));
    let after = std::fs::symlink_metadata(fixture.path("current")).unwrap();
    assert_eq!((before.ino(), before.ctime_nsec()), (after.ino(), after.ctime_nsec()));
    // Back and forth: `previous` already has the link that is needed.
    let _ = locked.activate(&name("v1")).unwrap();
    fixture.assert_links(&[("current", "v1"), ("previous", "v2")]);
}

#[test]
fn what_is_no_version_is_refused_and_nothing_moves() {
    let links = [("current", "v1"), ("previous", "v2")];
    let fixture = Fixture::new(&links);
    let locked = fixture.lock();
    for result in [locked.activate(&name("v9")), locked.roll_back_to(&name("v9")), locked.roll_back_to_factory()] {
        assert!(matches!(result, Err(Error::NotFound { .. })), "{result:?}");
    }
    assert!(matches!(locked.set_previous(&name("v9")), Err(Error::NotFound { what: "version", .. })));
    assert!(locked.expect_current(Some(&name("v1"))).is_ok());
    for other in [None, Some(&name("v2"))] {
        let refused = locked.expect_current(other);
        assert!(matches!(refused, Err(Error::Refused { why: Refusal::Superseded, .. })));
    }
    fixture.assert_links(&links);
    std::fs::remove_dir(fixture.path("v2")).unwrap();
    assert!(matches!(locked.roll_back_to_previous(), Err(Error::NotFound { what: "version", .. })));
    fixture.assert_links(&links);
}

#[test]
fn a_file_or_directory_in_the_place_of_a_link_is_never_replaced() {
    for taken in ["current", "previous", ".next", ".was"] {
        for directory in [true, false] {
            let fixture = Fixture::new(&[("current", "v1"), ("previous", "v2"), ("factory", "v3")]);
            let _ = std::fs::remove_file(fixture.path(taken));
            if directory {
                std::fs::create_dir(fixture.path(taken)).unwrap();
            } else {
                std::fs::write(fixture.path(taken), "mine").unwrap();
            }
            let before = fixture.links();
            let locked = fixture.lock();
            let refused = locked.activate(&name("v4"));
            assert!(matches!(refused, Err(Error::Refused { why: Refusal::ForeignFile, .. })), "{taken} {refused:?}");
            assert_eq!(fixture.links(), before, "{taken}");
            // The fire exit stays open wherever it can.
            if taken != "current" && taken != "previous" {
                assert_eq!(locked.roll_back_to_previous().unwrap().to, name("v2"));
            }
            assert_eq!(std::fs::symlink_metadata(fixture.path(taken)).unwrap().is_dir(), directory);
        }
    }
}

#[test]
fn a_current_that_leads_nowhere_is_replaced_and_previous_stays() {
    for target in ["v9", "/etc", "current"] {
        let fixture = Fixture::new(&[("current", target), ("previous", "v2")]);
        let locked = fixture.lock();
        let switch = locked.activate(&name("v1")).unwrap();
        assert_eq!((&switch.from, switch.changed), (&None, true));
        fixture.assert_links(&[("current", "v1"), ("previous", "v2")]);
        let _ = locked.roll_back_to_previous().unwrap();
        fixture.assert_links(&[("current", "v2")]);
    }
}

#[test]
fn rolling_back_moves_previous_up_and_leaves_factory_where_it_is() {
    let fixture = Fixture::new(&[("current", "v3"), ("previous", "v2"), ("factory", "v1")]);
    let locked = fixture.lock();
    let back = locked.roll_back_to_previous().unwrap();
    assert_eq!((&back.from, &back.to, back.changed), (&Some(name("v3")), &name("v2"), true));
    fixture.assert_links(&[("current", "v2"), ("factory", "v1")]);
    assert!(matches!(locked.roll_back_to_previous(), Err(Error::NotFound { what: "role", .. })));
    let inodes = || ["current", "factory"].map(|link| std::fs::symlink_metadata(fixture.path(link)).unwrap().ino());
    let back = locked.roll_back_to_factory().unwrap();
    assert_eq!((&back.from, &back.to), (&Some(name("v2")), &name("v1")));
    assert_eq!(inodes()[0], inodes()[1]);
    assert!(!locked.roll_back_to_factory().unwrap().changed);
    // Two roles are one inode now; switching on from there and back works all the same.
    let _ = locked.activate(&name("v4")).unwrap();
    fixture.assert_links(&[("current", "v4"), ("factory", "v1"), ("previous", "v1")]);
    let _ = locked.roll_back_to_previous().unwrap();
    fixture.assert_links(&[("current", "v1"), ("factory", "v1")]);
    assert_eq!(locked.roll_back_to(&name("v3")).unwrap().from, Some(name("v1")));
    fixture.assert_links(&[("current", "v3"), ("factory", "v1")]);
}

#[test]
fn a_rollback_between_two_names_of_one_inode_only_drops_previous() {
    for linked in [true, false] {
        let fixture = Fixture::new(&[("current", "v1")]);
        if linked {
            std::fs::hard_link(fixture.path("current"), fixture.path("previous")).unwrap();
        } else {
            symlink("v1", fixture.path("previous")).unwrap();
        }
        let locked = fixture.lock();
        let back = locked.roll_back_to_previous().unwrap();
        assert_eq!((&back.from, &back.to, back.changed), (&Some(name("v1")), &name("v1"), false));
        fixture.assert_links(&[("current", "v1")]);
    }
}

#[test]
fn links_through_other_roles_get_targets_of_their_own_before_a_switch() {
    // `ln -sfn current previous`: moved over current as it stands, it would lead to itself.
    let fixture = Fixture::new(&[("current", "v1"), ("previous", "current"), ("factory", "current")]);
    let _ = fixture.lock().activate(&name("v2")).unwrap();
    fixture.assert_links(&[("current", "v2"), ("factory", "v1"), ("previous", "v1")]);
    // `ln -sfn TOP/versions/factory current`: the guide's own rollback.
    let fixture = Fixture::new(&[("current", "TOP/versions/factory"), ("previous", "v2"), ("factory", "v1")]);
    let _ = fixture.lock().activate(&name("v3")).unwrap();
    fixture.assert_links(&[("current", "v3"), ("factory", "v1"), ("previous", "v1")]);
    let fixture = Fixture::new(&[("current", "previous"), ("previous", "factory"), ("factory", "v1")]);
    let locked = fixture.lock();
    assert!(!locked.roll_back_to_previous().unwrap().changed);
    fixture.assert_links(&[("current", "v1"), ("factory", "v1")]);
}

#[test]
fn roundabout_spellings_become_plain() {
    let links = [("current", "TOP/versions/v1"), ("previous", "v2/"), ("factory", "./v3")];
    let plain = [("current", "v1"), ("factory", "v3"), ("previous", "v2")];
    let fixture = Fixture::new(&links);
    let locked = fixture.lock();
    let same = locked.activate(&name("v1")).unwrap();
    assert_eq!((same.changed, &*same.respelt), (false, &Role::ALL[..]));
    fixture.assert_links(&plain);
    let fixture = Fixture::new(&links);
    let locked = fixture.lock();
    let other = locked.activate(&name("v4")).unwrap();
    assert_eq!((other.changed, &*other.respelt), (true, &[Role::Factory][..]));
    fixture.assert_links(&[("current", "v4"), ("factory", "v3"), ("previous", "v1")]);
    let fixture = Fixture::new(&links);
    let locked = fixture.lock();
    let back = locked.roll_back_to_previous().unwrap();
    assert_eq!((&back.to, &*back.respelt), (&name("v2"), &[Role::Current, Role::Factory][..]));
    fixture.assert_links(&[("current", "v2"), ("factory", "v3")]);
}

#[test]
fn the_other_roles_are_set_and_cleared() {
    let fixture = Fixture::new(&[("current", "v1")]);
    let locked = fixture.lock();
    assert!(locked.set_factory(&name("v1")).unwrap());
    assert!(!locked.set_factory(&name("v1")).unwrap());
    assert!(locked.set_previous(&name("v2")).unwrap());
    assert!(locked.set_previous(&name("v1")).unwrap());
    assert!(locked.set_factory(&name("v3")).unwrap());
    fixture.assert_links(&[("current", "v1"), ("factory", "v3"), ("previous", "v1")]);
    assert!(locked.clear_previous().unwrap());
    assert!(!locked.clear_previous().unwrap());
    fixture.assert_links(&[("current", "v1"), ("factory", "v3")]);
}

/// Every prefix of every activation, then a crash: `current` leads to the old or the new version, the old one has a
/// link, and recovery ends in the state before or after.
#[test]
fn a_crash_after_any_step_leaves_the_old_or_the_new_version() {
    type Links = &'static [(&'static str, &'static str)];
    let starts: [Links; 6] = [
        &[],
        &[("current", "v1")],
        &[("current", "v1"), ("previous", "v2")],
        &[("current", "v1"), ("previous", "v3"), ("factory", "v1")],
        &[("current", "v1"), ("previous", "v1")],
        &[("current", "v9"), ("previous", "v2")],
    ];
    for links in starts {
        let old = Fixture::new(links).refs.read().unwrap().version(Role::Current).cloned();
        let steps = if old.is_some() { REPLACE } else { FIRST };
        let before = Fixture::new(links).links();
        let complete = Fixture::new(links);
        let _ = complete.lock().activate(&name("v3")).unwrap();
        for died_after in 0..=steps.len() {
            let fixture = Fixture::new(links);
            let locked = fixture.lock();
            let roles = locked.read().unwrap();
            for step in &steps[..died_after] {
                locked.take(*step, &name("v3"), &roles).unwrap();
            }
            let switched = steps[..died_after].contains(&Step::Show);
            let current = fixture.refs.read().unwrap().version(Role::Current).cloned();
            assert_eq!(current, if switched { Some(name("v3")) } else { old.clone() });
            if let Some(old) = &old {
                let target = old.to_string();
                let mut reachable = fixture.links().into_iter();
                let kept = ["current", "previous", ".was"];
                assert!(reachable.any(|(link, to)| kept.contains(&&*link) && to == target), "{links:?} {died_after}");
            }
            locked.recover().unwrap();
            assert_eq!(fixture.links(), if switched { complete.links() } else { before.clone() }, "{died_after}");
            assert_eq!(locked.recover().unwrap(), Recovered::default());
        }
    }
}

#[test]
fn every_command_begins_by_recovering() {
    let left = [("current", "v2"), (".was", "v1"), ("previous", "v4"), ("factory", "v4"), (".next", "v3")];
    type Command = for<'a> fn(&'a LockedRefs<'_>) -> Result<()>;
    let commands: [(Command, &[(&str, &str)]); 5] = [
        (|locked| locked.activate(&name("v3")).map(drop), &[("current", "v3"), ("factory", "v4"), ("previous", "v2")]),
        (|locked| locked.roll_back_to_previous().map(drop), &[("current", "v1"), ("factory", "v4")]),
        (|locked| locked.roll_back_to_factory().map(drop), &[("current", "v4"), ("factory", "v4"), ("previous", "v1")]),
        (
            |locked| locked.set_factory(&name("v3")).map(drop),
            &[("current", "v2"), ("factory", "v3"), ("previous", "v1")],
        ),
        (|locked| locked.clear_previous().map(drop), &[("current", "v2"), ("factory", "v4")]),
    ];
    for (command, expected) in commands {
        let fixture = Fixture::new(&left);
        command(&fixture.lock()).unwrap();
        fixture.assert_links(expected);
    }
    let fixture = Fixture::new(&left);
    let recovered = fixture.lock().recover().unwrap();
    assert_eq!(recovered, Recovered { previous: Some(name("v1")), dropped: vec![".next"] });
}

#[test]
fn readers_of_current_never_fail_while_it_is_switched_ten_thousand_times() {
    let fixture = Fixture::new(&[("current", "v1"), ("factory", "v4")]);
    for version in ["v1", "v2", "v3", "v4"] {
        std::fs::write(fixture.path(version).join("file"), format!("{version}\n")).unwrap();
    }
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let file = fixture.path("current").join("file");
    // A process beside the threads: its lookups share no directory handle with the switch.
    let mut process = std::process::Command::new("sh")
        .args(["-c", "n=0; while [ $n -lt 10000 ]; do read -r _ <\"$0\" || exit 1; n=$((n+1)); done"])
        .arg(&file)
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let text = std::fs::read_to_string(&file).expect("current is always there");
                    assert_eq!(text.len(), 3);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let locked = fixture.lock();
        for round in 0..2500 {
            let _ = locked.activate(&name("v2")).unwrap();
            let _ = locked.activate(&name("v3")).unwrap();
            let _ = locked.roll_back_to_previous().unwrap();
            let _ =
                if round % 2 == 0 { locked.roll_back_to_factory() } else { locked.roll_back_to(&name("v1")) }.unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(process.wait().unwrap().success());
    assert!(reads.into_inner() > 100);
}

#[test]
fn two_switchers_take_turns() {
    let fixture = Fixture::new(&[("current", "v1")]);
    let held = fixture.lock();
    let refused = fixture.refs.lock(Duration::from_millis(20));
    assert!(matches!(refused, Err(Error::Locked { lock: "refs.lock", .. })));
    drop(held);
    drop(fixture.lock());
}

#[test]
fn a_switch_is_at_rest_once_it_is_recorded() {
    let fixture = Fixture::new(&[("current", "v1")]);
    let is_moving = || fixture.refs.is_moving().ok();
    assert_eq!(is_moving(), None, "a store of an older build has no line");
    let locked = fixture.lock();
    let first = locked.place();
    assert_eq!(is_moving(), Some(true), "somebody may be about to switch");
    drop(locked);
    let second = fixture.lock().place();
    assert_eq!(is_moving(), Some(true));
    assert!(first.wait(SOON) && !second.wait(Duration::from_millis(5)));
    drop(first);
    assert!(second.wait(SOON));
    drop(second);
    assert_eq!(is_moving(), Some(false));
}

/// What another process needs at once is held by nobody who waits for the medium.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "waits for the medium")]
fn nothing_is_synced_under_the_lock() {
    let fixture = Fixture::new(&[("current", "v1")]);
    let _locked = fixture.lock();
    let _ = fixture.refs.sync();
}
