#![allow(clippy::disallowed_methods)]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::clock::FixedClock;
use crate::error::Error;
use crate::model::event::Actor;

const SOON: Duration = Duration::from_secs(10);

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

/// A log of three pins, as bytes.
fn three_pins() -> Vec<u8> {
    let temporary = tempfile::tempdir().unwrap();
    let history = open(temporary.path());
    append(&history, vec![pin("v1"), pin("v2")]);
    append(&history, vec![pin("v3")]);
    std::fs::read(temporary.path().join("history")).unwrap()
}

fn pins(marks: &Marks) -> Vec<&str> {
    marks.pins.iter().map(crate::model::VersionName::as_str).collect()
}

fn actions(reading: &Reading) -> Vec<(u64, Action, bool)> {
    reading.events.iter().map(|r| (r.event.seq, r.event.action, r.trusted)).collect()
}

/// A directory with these files.
fn files(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let temporary = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(temporary.path().join(name), bytes).unwrap();
    }
    temporary
}

#[test]
fn what_is_appended_is_read_with_number_time_and_boot() {
    let temporary = tempfile::tempdir().unwrap();
    let history = open(temporary.path());
    assert_eq!(history.present().unwrap().state, State::Missing);
    assert_eq!(history.read().unwrap().state, State::Missing);
    let first = append(&history, vec![pin("v1"), pin("v2")]);
    let second = append(&open(temporary.path()), vec![Event { time: 99, seq: 99, ..pin("v3") }]);
    assert_eq!((first.own, second.own), (vec![], vec![]));
    let filled = |seq, name| Event { seq, time: 7, synchronised: true, boot: "boot".into(), ..pin(name) };
    let reading = history.read().unwrap();
    assert_eq!(reading.trusted().cloned().collect::<Vec<_>>(), [filled(1, "v1"), filled(2, "v2"), filled(3, "v3")]);
    let present = history.present().unwrap();
    assert_eq!((&present.marks, present.chain, &present.state), (&reading.marks, reading.chain, &State::Sound));
    assert_eq!((pins(&reading.marks), reading.chain), (vec!["v1", "v2", "v3"], second.chain));
    let nothing = append(&history, vec![]);
    assert_eq!(nothing, Appended { events: vec![], own: vec![], chain: second.chain });
    assert_eq!(std::fs::metadata(temporary.path().join("history")).unwrap().mode() & 0o777, 0o644);
}

/// The matrix: every length that a power cut can leave, alone, with zeros behind it, and with every byte flipped.
#[test]
fn every_truncation_is_torn_and_every_flipped_byte_is_broken() {
    let whole = three_pins();
    let ends: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').map(|at| at + 1).collect();
    for length in 1..whole.len() {
        let temporary = files(&[("history", &whole[..length])]);
        let sound = ends.iter().copied().filter(|end| *end <= length).max().unwrap_or(0);
        let state = open(temporary.path()).read().unwrap().state;
        let (offset, bytes) = (sound as u64, (length - sound) as u64);
        let expected = if bytes == 0 { State::Sound } else { State::Torn { offset, bytes } };
        assert_eq!(state, expected, "{length}");
        let mut zeros = whole[..length].to_vec();
        zeros.resize(whole.len(), 0);
        let temporary = files(&[("history", &zeros)]);
        let bytes = (whole.len() - sound) as u64;
        assert_eq!(open(temporary.path()).present().unwrap().state, State::Torn { offset, bytes }, "{length}");
    }
    for at in 0..whole.len() - 1 {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let temporary = files(&[("history", &flipped)]);
        let history = open(temporary.path());
        let present = history.present().unwrap();
        let broken = matches!(&present.state, State::Broken { line, .. } if *line as usize == 1 + ends.iter().filter(|end| **end <= at).count());
        assert!(broken, "{at}: {:?}", present.state);
        let refused = history.append(&FixedClock::at(1), SOON, vec![pin("v4")]);
        assert!(matches!(refused, Err(Error::Corrupt { what: "history", .. })), "{at}");
        assert_eq!(std::fs::read(temporary.path().join("history")).unwrap(), flipped);
    }
}

#[test]
fn a_torn_tail_is_cut_and_noted_by_the_next_append() {
    let whole = three_pins();
    let second = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for (tail, quoted) in [(&b"abc"[..], "abc"), (b"\0\0\0", "\\u{0}\\u{0}\\u{0}"), (b"ab\0\n", "ab\\u{0}\\n")] {
        for kept in [second, 0] {
            let temporary = files(&[("history", &[&whole[..kept], tail].concat())]);
            let history = open(temporary.path());
            let appended = append(&history, vec![pin("v9")]);
            let text = format!("cut {} bytes at offset {kept}: {quoted}", tail.len());
            assert_eq!(appended.own[0].text.as_deref(), Some(&*text));
            let reading = open(temporary.path()).read().unwrap();
            assert_eq!(reading.state, State::Sound);
            let (cut, last) = (reading.events.len() - 2, reading.events.len() - 1);
            assert_eq!(reading.events[cut].event.action, Action::HistoryCut);
            assert_eq!(reading.events[last].event, appended.events[0]);
            assert_eq!(history.present().unwrap().marks, reading.marks);
        }
    }
}

#[test]
fn zeros_before_whole_lines_are_damage_and_not_a_torn_tail() {
    let mut holed = three_pins();
    let second = holed.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    holed[second + 10..second + 40].fill(0);
    let temporary = files(&[("history", &holed)]);
    let reading = open(temporary.path()).read().unwrap();
    let detail = "holds NUL bytes, and whole lines follow".to_owned();
    assert_eq!(reading.state, State::Broken { segment: "history".into(), line: 2, detail });
    assert_eq!(actions(&reading), [(1, Action::Pin, true), (3, Action::Pin, false)]);
    assert_eq!(pins(&reading.marks), ["v1", "v3"]);
}

#[test]
fn a_reset_keeps_the_broken_segment_and_what_could_be_read() {
    let mut damaged = three_pins();
    damaged[3] ^= 1;
    let temporary = files(&[("history", &damaged)]);
    let history = open(temporary.path());
    let clock = FixedClock::at(8);
    let event = history.reset(&clock, SOON, Actor::default(), "seen", &Memory::default()).unwrap().unwrap();
    assert_eq!((event.seq, event.reason.as_deref()), (4, Some("seen")));
    assert_eq!(std::fs::read(temporary.path().join("history.000001")).unwrap(), damaged);
    assert_eq!(history.reset(&clock, SOON, Actor::default(), "again", &Memory::default()).unwrap(), None);
    append(&history, vec![pin("v4")]);
    let reading = open(temporary.path()).read().unwrap();
    assert_eq!(reading.state, State::Sound);
    assert!(
        matches!(&reading.acknowledged[..], [State::Broken { segment, line: 1, .. }] if segment == "history.000001")
    );
    assert_eq!(
        actions(&reading),
        [
            (1, Action::Pin, false),
            (2, Action::Pin, false),
            (3, Action::Pin, false),
            (4, Action::HistoryReset, true),
            (5, Action::Pin, true)
        ]
    );
    assert_eq!(pins(&history.present().unwrap().marks), ["v1", "v2", "v3", "v4"]);
    assert_eq!(history.present().unwrap().marks, reading.marks);
}

/// A log of two segments, the first of which is full.
fn two_segments() -> (tempfile::TempDir, Appended) {
    let temporary = tempfile::tempdir().unwrap();
    let history = open(temporary.path());
    append(&history, vec![pin("v1"), note(SEGMENT_BYTES as usize)]);
    let appended = append(&history, vec![pin("v2")]);
    (temporary, appended)
}

#[test]
fn a_full_segment_is_followed_by_one_that_tells_all_marks_by_itself() {
    let (temporary, appended) = two_segments();
    assert_eq!(appended.own.iter().map(|e| (e.seq, e.action)).collect::<Vec<_>>(), [(3, Action::Checkpoint)]);
    assert_eq!(appended.events[0].seq, 4);
    let history = open(temporary.path());
    let reading = history.read().unwrap();
    assert_eq!((&reading.state, reading.events.len()), (&State::Sound, 4));
    assert_eq!(history.present().unwrap().marks, reading.marks);
    // The note of a mebibyte is in the checkpoint now, which does not count as events: no third segment.
    append(&history, vec![pin("v3")]);
    assert!(!temporary.path().join("history.000002").exists());
    append(&history, vec![note(SEGMENT_BYTES as usize)]);
    append(&history, vec![pin("v4")]);
    assert!(temporary.path().join("history.000002").exists());
    let reading = open(temporary.path()).read().unwrap();
    assert_eq!((&reading.state, reading.events.len()), (&State::Sound, 8));
    assert_eq!(history.present().unwrap().marks, reading.marks);
    std::fs::remove_file(temporary.path().join("history.000001")).unwrap();
    assert_eq!(history.present().unwrap().state, State::Sound);
    let gone = State::Broken {
        segment: "history.000002".into(),
        line: 1,
        detail: "it does not follow the segment before it".into(),
    };
    assert_eq!(history.read().unwrap().state, gone);
}

/// Each row of the table of crash windows, made by hand, is read as sound and the next append goes on from it.
#[test]
fn a_new_segment_that_was_interrupted_is_begun_again() {
    let full = || {
        let temporary = tempfile::tempdir().unwrap();
        append(&open(temporary.path()), vec![pin("v1"), note(SEGMENT_BYTES as usize)]);
        temporary
    };
    let link = |at: &Path| std::fs::hard_link(at.join("history"), at.join("history.000001")).unwrap();
    let leftover = |at: &Path| std::fs::write(at.join(".history.new"), "half a checkpoi").unwrap();
    type Window<'a> = &'a dyn Fn(&Path);
    let windows: [Window<'_>; 3] = [&|_| {}, &link, &|at| {
        link(at);
        leftover(at);
    }];
    for (at, window) in windows.into_iter().enumerate() {
        let temporary = full();
        window(temporary.path());
        let history = open(temporary.path());
        let reading = history.read().unwrap();
        assert_eq!((&reading.state, reading.events.len()), (&State::Sound, 2), "{at}");
        append(&history, vec![pin("v2")]);
        let reading = history.read().unwrap();
        assert_eq!((&reading.state, reading.events.len()), (&State::Sound, 4), "{at}");
        let names: Vec<_> = history.store.items().unwrap().into_iter().map(|item| item.name.to_string()).collect();
        assert_eq!(names, ["history", "history.000001", "history.lock"], "{at}");
    }
}

#[test]
fn a_current_segment_that_is_gone_is_damage_and_older_ones_give_the_marks() {
    let (temporary, _) = two_segments();
    std::fs::remove_file(temporary.path().join("history")).unwrap();
    let history = open(temporary.path());
    let present = history.present().unwrap();
    assert!(matches!(&present.state, State::Broken { segment, line: 0, .. } if segment == "history"));
    assert_eq!(pins(&present.marks), ["v1"]);
    assert!(history.append(&FixedClock::at(1), SOON, vec![pin("v5")]).is_err());
    history.reset(&FixedClock::at(1), SOON, Actor::default(), "lost", &Memory::default()).unwrap().unwrap();
    append(&history, vec![pin("v5")]);
    assert_eq!(pins(&history.present().unwrap().marks), ["v1", "v5"]);
    assert_eq!(history.read().unwrap().state, State::Sound);
}

#[test]
fn a_reader_of_lines_that_were_taken_back_begins_anew() {
    let whole = three_pins();
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let temporary = files(&[("history", &whole)]);
    let reader = open(temporary.path());
    assert_eq!(pins(&reader.present().unwrap().marks), ["v1", "v2", "v3"]);
    std::fs::write(temporary.path().join("history"), &whole[..first]).unwrap();
    append(&open(temporary.path()), vec![pin("v7"), pin("v8"), pin("v9")]);
    assert_eq!(pins(&reader.present().unwrap().marks), ["v1", "v7", "v8", "v9"]);
}

#[test]
fn many_writers_and_lock_free_readers_see_one_chain() {
    let temporary = tempfile::tempdir().unwrap();
    append(&open(temporary.path()), vec![pin("v0"), note(SEGMENT_BYTES as usize - 8000)]);
    let writing = std::sync::atomic::AtomicUsize::new(3);
    std::thread::scope(|scope| {
        for writer in 0..3 {
            let (temporary, writing) = (&temporary, &writing);
            scope.spawn(move || {
                let history = open(temporary.path());
                for at in 0..30 {
                    append(&history, vec![pin(&format!("w{writer}.{at}")), note(10)]);
                }
                writing.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        let reader = open(temporary.path());
        let mut seen = 0;
        while writing.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            let present = reader.present().unwrap();
            assert!(present.state.is_trustworthy(), "{:?}", present.state);
            assert!(present.marks.last_event >= seen);
            seen = present.marks.last_event;
            let state = reader.read().unwrap().state;
            assert!(state.is_trustworthy(), "{state:?}");
        }
    });
    let reading = open(temporary.path()).read().unwrap();
    assert_eq!(reading.state, State::Sound);
    assert_eq!(reading.marks.pins.len(), 91);
    let numbers: Vec<u64> = reading.events.iter().map(|recorded| recorded.event.seq).collect();
    assert_eq!(numbers, (1..=2 + 180 + 1).collect::<Vec<_>>());
}

/// A limit on file sizes makes the kernel write a part and then fail: what a full disk does where nothing could be
/// allocated ahead. The test runs itself again below such a limit.
#[test]
fn a_short_write_leaves_the_file_as_it_was() {
    const DIRECTORY: &str = "TOPE_TEST_SHORT_WRITE";
    let name = "history::tests::a_short_write_leaves_the_file_as_it_was";
    let Some(at) = std::env::var_os(DIRECTORY) else {
        let temporary = tempfile::tempdir().unwrap();
        append(&open(temporary.path()), vec![pin("v1")]);
        let limited = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" --exact \"$1\" --nocapture"])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(DIRECTORY, temporary.path())
            .output()
            .unwrap();
        assert!(limited.status.success(), "{limited:?}");
        assert!(String::from_utf8_lossy(&limited.stdout).contains("1 passed"), "{limited:?}");
        return;
    };
    let history = open(Path::new(&at));
    let before = std::fs::read(Path::new(&at).join("history")).unwrap();
    let error = history.append(&FixedClock::at(1), SOON, vec![pin("v2"), note(9000)]).unwrap_err();
    assert!(error.is_io(std::io::ErrorKind::FileTooLarge), "{error:?}");
    assert_eq!(std::fs::read(Path::new(&at).join("history")).unwrap(), before);
    append(&history, vec![pin("v3")]);
    assert_eq!(pins(&history.present().unwrap().marks), ["v1", "v3"]);
}
