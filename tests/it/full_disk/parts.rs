//! The history and the role links by themselves, on a disk without a free block and without a free inode.

use std::path::Path;
use std::time::Duration;

use tope_store::clock::FixedClock;
use tope_store::error::ErrorKind;
use tope_store::fsys::Dir;
use tope_store::history::{Appended, History, SEGMENT_BYTES, State};
use tope_store::layout::Layout;
use tope_store::model::{Action, Event, Role, VersionName};
use tope_store::refs::{LockedRefs, Refs};

use crate::support::Outcome;
use crate::support::image::{Image, Kind, fill, make_room};

tests![
    a_hundred_more_events_fit_and_a_large_one_is_refused_whole,
    a_segment_that_cannot_be_begun_loses_no_event,
    rolling_back_needs_neither_a_block_nor_an_inode,
    an_activation_fails_and_changes_nothing,
];

const SOON: Duration = Duration::from_secs(10);

/// As small as ext4 goes, so that it is full at once.
fn small(mebibytes: u64) -> Result<Image, crate::support::Skipped> {
    Image::with_options(Kind::Ext4, mebibytes, &["-m", "0", "-N", "32"])
}

fn open(at: &Path) -> History {
    History::new(Dir::open(at).unwrap())
}

fn pin(name: &str) -> Event {
    Event::about(Action::Pin, &name.parse().unwrap(), None)
}

fn note(bytes: usize) -> Event {
    Event { text: Some("x".repeat(bytes)), ..Event::about(Action::Note, &"v1".parse().unwrap(), None) }
}

fn append(history: &History, events: Vec<Event>) -> Appended {
    history.append(&FixedClock::at(7), SOON, events).unwrap()
}

fn a_hundred_more_events_fit_and_a_large_one_is_refused_whole() -> Outcome {
    let image = small(1)?;
    let top = image.mounted();
    let history = open(&top);
    append(&history, vec![pin("v1")]);
    fill(&top);
    for _ in 0..50 {
        append(&open(&top), vec![note(20)]);
    }
    let before = std::fs::read(top.join("history")).unwrap();
    let error = history.append(&FixedClock::at(1), SOON, vec![note(200_000)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert_eq!(std::fs::read(top.join("history")).unwrap(), before);
    for _ in 0..50 {
        append(&history, vec![note(20)]);
    }
    assert_eq!(history.read().unwrap().marks.last_event, 101);
    Ok(())
}

fn a_segment_that_cannot_be_begun_loses_no_event() -> Outcome {
    let image = small(4)?;
    let top = image.mounted();
    let history = open(&top);
    append(&history, vec![pin("v1"), note(usize::try_from(SEGMENT_BYTES).unwrap())]);
    fill(&top);
    let appended = append(&history, vec![pin("v2")]);
    assert_eq!((appended.own, appended.events[0].seq), (vec![], 3));
    make_room(&top);
    let appended = append(&open(&top), vec![pin("v3")]);
    assert_eq!(appended.own[0].action, Action::Checkpoint);
    let reading = open(&top).read().unwrap();
    assert_eq!((reading.state, reading.events.len()), (State::Sound, 5));
    Ok(())
}

fn name(text: &str) -> VersionName {
    text.parse().unwrap()
}

/// Links and the directories `v1` to `v4`; `TOP` in a target stands for the mount point.
fn links(top: &Path, links: &[(&str, &str)]) -> Refs {
    let versions = top.join("versions");
    for version in ["v1", "v2", "v3", "v4"] {
        std::fs::create_dir_all(versions.join(version)).unwrap();
    }
    std::fs::create_dir_all(top.join("store")).unwrap();
    for (link, target) in links {
        std::os::unix::fs::symlink(target.replace("TOP", top.to_str().unwrap()), versions.join(link)).unwrap();
    }
    let store = Dir::open(top.join("store")).unwrap();
    Refs::new(Dir::open(&versions).unwrap(), store, &Layout::new(top, None))
}

fn lock(refs: &Refs) -> LockedRefs<'_> {
    refs.lock(SOON).unwrap()
}

/// All links with their targets.
fn all(top: &Path) -> Vec<(String, String)> {
    let items = std::fs::read_dir(top.join("versions")).unwrap().map(|item| item.unwrap());
    let mut all: Vec<(String, String)> = items
        .filter_map(|item| {
            let target = std::fs::read_link(item.path()).ok()?;
            Some((item.file_name().into_string().unwrap(), target.to_str().unwrap().to_owned()))
        })
        .collect();
    all.sort();
    all
}

/// The fire exit, with links as hands may have left them.
fn rolling_back_needs_neither_a_block_nor_an_inode() -> Outcome {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("current", "v3"), ("previous", "v2"), ("factory", "v1")], "v2"),
        (&[("current", "v3"), ("previous", "TOP/versions/v2"), ("factory", "v1/")], "v2"),
        (&[("current", "v3"), ("previous", "factory"), ("factory", "TOP/versions/v1")], "v1"),
        (&[("current", "v4"), ("previous", "v1"), (".was", "v3"), (".next", "v2"), ("factory", "current")], "v3"),
    ];
    for (given, previous) in cases {
        let image = small(1)?;
        let top = image.mounted();
        let refs = links(&top, given);
        drop(lock(&refs));
        let factory = refs.read().unwrap().version(Role::Factory).cloned().unwrap();
        fill(&top);
        let back = lock(&refs).roll_back_to_previous().unwrap();
        assert_eq!((&back.to, back.changed), (&name(previous), true));
        refs.sync().unwrap();
        assert_eq!(refs.read().unwrap().version(Role::Current), Some(&name(previous)));
        let back = lock(&refs).roll_back_to_factory().unwrap();
        assert_eq!(back.to, factory);
        refs.sync().unwrap();
        assert_eq!(refs.read().unwrap().of(&factory), [Role::Current, Role::Factory]);
        assert!(!all(&top).iter().any(|(name, _)| name.starts_with('.')), "{:?}", all(&top));
    }
    Ok(())
}

fn an_activation_fails_and_changes_nothing() -> Outcome {
    let image = small(1)?;
    let top = image.mounted();
    let refs = links(&top, &[("current", "v3"), ("previous", "v2"), ("factory", "v1")]);
    drop(lock(&refs));
    fill(&top);
    let before = all(&top);
    let locked = lock(&refs);
    let error = locked.activate(&name("v4")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error:?}");
    assert_eq!(all(&top), before);
    // To a version that a role leads to there is a way even now.
    let _ = locked.activate(&name("v2")).unwrap();
    let links = [("current", "v2"), ("factory", "v1"), ("previous", "v3")];
    assert_eq!(all(&top), links.map(|(name, target)| (name.to_owned(), target.to_owned())));
    Ok(())
}
