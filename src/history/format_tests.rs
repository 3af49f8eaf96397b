#![allow(clippy::disallowed_methods)]

use super::*;
use crate::model::event::{Actor, Claimed, Evidence};
use crate::model::{Digest, TreeId};
use crate::test_vectors::vector;

/// What a log of these segments says, the last one being the current.
fn reading(segments: &[&str]) -> Reading {
    let temporary = tempfile::tempdir().unwrap();
    for (at, segment) in segments.iter().enumerate() {
        let current = at + 1 == segments.len();
        let name = if current { "history".to_owned() } else { format!("history.{:06}", at + 1) };
        std::fs::write(temporary.path().join(name), segment).unwrap();
    }
    History::new(Dir::open(temporary.path()).unwrap()).read().unwrap()
}

/// The lines that these events are written as behind `chain`.
fn written(events: &[Event], mut chain: Chain) -> String {
    let mut bytes = Vec::new();
    for event in events {
        let (line, next) = event.to_line(&chain);
        bytes.extend_from_slice(&line);
        chain = next;
    }
    String::from_utf8(bytes).unwrap()
}

fn event(seq: u64, action: Action) -> Event {
    let who = Actor { uid: 0, name: "ada".into(), pid: 812, ..Actor::default() };
    Event { seq, time: 1_767_225_600, synchronised: true, boot: "b0".into(), who, ..Event::new(action) }
}

fn first_segment() -> Vec<Event> {
    let (version, digest) = (Some("v1.0.0".parse().unwrap()), Some(Digest(TreeId::from_bytes([0xab; 32]))));
    let evidence = Evidence {
        check: "http".into(),
        detail: "status 500".into(),
        exit_code: Some(1),
        log: vec!["one\ttwo".into()],
    };
    vec![
        event(1, Action::Init),
        Event {
            version: version.clone(),
            digest,
            import_number: Some(1),
            outcome: "done".into(),
            ..event(2, Action::Import)
        },
        Event { version: version.clone(), text: Some("gr\u{fc}n \"1\"\n".into()), ..event(3, Action::Note) },
        Event { version, digest, evidence: Some(evidence), synchronised: false, ..event(4, Action::Bad) },
    ]
}

#[test]
fn the_first_segment_is_written_as_specified() {
    let text = vector("history-first");
    assert_eq!(text, written(&first_segment(), CHAIN_START));
    let reading = reading(&[text]);
    assert_eq!((&reading.state, reading.trusted().cloned().collect::<Vec<_>>()), (&State::Sound, first_segment()));
}

#[test]
fn an_actor_is_written_as_specified() {
    let claimed = Claimed { sudo_user: "ada".into(), sudo_uid: Some(1000), user: "eve".into() };
    let who = Actor { name: "root".into(), unit: "tope-store-gc.service".into(), claimed, ..event(1, Action::Gc).who };
    let event = Event { who, ..event(1, Action::Gc) };
    let text = vector("who").trim_end();
    assert_eq!(serde_json::to_string(&event).unwrap(), text);
    assert_eq!(Event::parse(text.as_bytes()).unwrap(), event);
}

#[test]
fn the_second_segment_is_written_as_specified() {
    let (first, second) = (vector("history-first"), vector("history-second"));
    let before = reading(&[first]);
    let pin = Event { version: Some("v1.0.0".parse().unwrap()), ..event(6, Action::Pin) };
    let chain_before = Some(blake3::Hash::from_bytes(before.chain).to_hex().to_string());
    let checkpoint = Event { marks: Some(Box::new(before.marks)), chain_before, ..event(5, Action::Checkpoint) };
    assert_eq!(second, written(&[checkpoint, pin], before.chain));
    let both = reading(&[first, second]);
    assert_eq!((both.state, both.events.len()), (State::Sound, 6));
}

#[test]
fn the_head_is_written_as_specified() {
    let chain = reading(&[vector("history-first"), vector("history-second")]).chain;
    let block = crate::model::Anchor { number: 6, chain }.to_block();
    assert_eq!([&block[..52], &block[480..]].concat(), crate::test_vectors::vector_bytes("head"));
    assert!(block[52..480].iter().all(|byte| *byte == 0));
}

#[test]
fn a_reset_is_written_as_specified() {
    let (first, reset) = (vector("history-first"), vector("history-reset"));
    let damaged = first.replacen("ada", "eve", 1);
    let before = reading(&[&damaged]);
    let expected = Event {
        reason: Some("disk replaced".into()),
        text: Some("history line 1: the chain is broken".into()),
        marks: Some(Box::new(before.marks)),
        ..event(5, Action::HistoryReset)
    };
    assert_eq!(reset, written(&[expected], CHAIN_START));
    let both = reading(&[&damaged, reset]);
    assert_eq!((both.state, both.acknowledged.len()), (State::Sound, 1));
}

#[test]
fn a_revocation_and_its_end_are_written_as_specified() {
    let name = |mode: &str| format!("3a/e7d805f6789a6402acb70ad4096a85a56bf6804eaf25c0493ac697548d30b5.{mode}.0.12");
    let (first, revoked) = (vector("history-first"), vector("history-revoked"));
    let mut before = reading(&[first]);
    let revoke = Event { objects: vec![name("0444"), name("4555")], ..event(5, Action::Revoke) };
    before.marks.apply(&revoke);
    let (_, chain) = revoke.to_line(&before.chain);
    let chain_before = Some(blake3::Hash::from_bytes(chain).to_hex().to_string());
    let repair = Event {
        outcome: "done".into(),
        text: Some("renewed one object".into()),
        cleared: vec![name("0444")],
        ..event(7, Action::Repair)
    };
    let checkpoint = Event { marks: Some(Box::new(before.marks)), chain_before, ..event(6, Action::Checkpoint) };
    assert_eq!(revoked, written(&[revoke, checkpoint, repair], before.chain));
    let (line, rest) = revoked.split_at(revoked.find('\n').unwrap() + 1);
    let all = reading(&[&format!("{first}{line}"), rest]);
    assert_eq!((all.state, &*all.marks.revoked), (State::Sound, &[name("4555")].into()));
}
