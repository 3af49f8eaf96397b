//! Imports at the same time.

use super::{arguments, assert_no_litter, error_of, finish, import, names_in, shell};
use crate::support::{Fixture, Outcome, tree};

tests![
    of_two_imports_of_one_name_one_wins,
    two_imports_with_the_same_contents_are_one,
    imports_of_many_names_at_once_share_their_objects,
    an_import_stopped_by_the_user_leaves_nothing,
    a_silent_pipe_can_be_given_up,
    a_closed_pipe_is_no_error,
];

fn both(fixture: &Fixture, one: &str, two: &str, version: &str) -> Vec<crate::support::Ran> {
    let spawn = |source: &str| {
        let mut command = fixture.command();
        command.args(arguments(fixture.beside(source), version, &[]));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children = [spawn(one), spawn(two)];
    children.into_iter().map(finish).collect()
}

fn of_two_imports_of_one_name_one_wins() -> Outcome {
    let fixture = Fixture::new();
    for round in 0..8 {
        for (source, number) in [("one", 2 * round), ("two", 2 * round + 1)] {
            let _ = std::fs::remove_dir_all(fixture.beside(source));
            tree::release(fixture.beside(source), number);
        }
        let version = format!("1.{round}");
        let mut ran = both(&fixture, "one", "two", &version);
        ran.sort_by_key(|ran| ran.code);
        assert_eq!((ran[0].code, ran[1].code), (0, 4), "{ran:#?}");
        error_of(&ran[1], "exists");
        let winner = ran[0].json();
        let source =
            ["one", "two"].into_iter().find(|source| import(&fixture, fixture.beside(source), &version, &[]).code == 0);
        let source = source.expect("the winner's contents are there");
        tree::assert_same(&fixture.beside(source), &fixture.path(format!("versions/v{version}")));
        assert_eq!(winner["already_there"], false);
    }
    assert_no_litter(&fixture);
    Ok(())
}

fn two_imports_with_the_same_contents_are_one() -> Outcome {
    let fixture = Fixture::new();
    for round in 0..8 {
        let _ = std::fs::remove_dir_all(fixture.beside("one"));
        tree::release(fixture.beside("one"), round);
        let version = format!("1.{round}");
        let ran = both(&fixture, "one", "one", &version);
        let already: Vec<bool> = ran.iter().map(|ran| ran.json()["already_there"] == true).collect();
        assert!(ran.iter().all(|ran| ran.code == 0), "{ran:#?}");
        assert_eq!(already.iter().filter(|there| **there).count(), 1, "{ran:#?}");
        tree::assert_same(&fixture.beside("one"), &fixture.path(format!("versions/v{version}")));
    }
    assert_no_litter(&fixture);
    let history = std::fs::read_to_string(fixture.path("store/history")).unwrap();
    assert_eq!(history.matches("\"import\"").count(), 8);
    Ok(())
}

fn imports_of_many_names_at_once_share_their_objects() -> Outcome {
    let fixture = Fixture::new();
    for number in 0..4 {
        tree::release(fixture.beside(number.to_string()), number);
    }
    let spawn = |number: u32| {
        let mut command = fixture.command();
        command.args(arguments(fixture.beside(number.to_string()), &format!("1.{number}"), &[]));
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..4).map(spawn).collect();
    let mut numbers: Vec<u64> =
        children.into_iter().map(|child| finish(child).ok().json()["import_number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4]);
    for number in 0..4 {
        tree::assert_same(&fixture.beside(number.to_string()), &fixture.path(format!("versions/v1.{number}")));
    }
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(fixture.path("versions/v1.0/lib/common.so")).unwrap().nlink(), 5);
    assert_no_litter(&fixture);
    Ok(())
}

fn interrupt(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn an_import_stopped_by_the_user_leaves_nothing() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("old"), 1);
    fixture.import("old", "0.1");
    let source = fixture.beside("source");
    shell(
        &fixture.beside("."),
        "mkdir source; cd source; for d in 1 2 3 4 5 6 7 8; do mkdir $d; for f in $(seq 400); do echo $d $f >$d/$f; done; done",
    );
    tree::file(source.join("big"), vec![1; 40 << 20]);
    let before = super::Traces::of(&fixture);
    // Slowed down, so that it is certainly at work.
    let slow = ["-e", "trace=linkat", "-e", "inject=linkat:delay_enter=2000"];
    let child = super::traced(&fixture, &slow, &arguments(&source, "1.0", &[]))?.spawn().unwrap();
    super::wait_until("objects are made", || super::objects(&fixture).len() > 50);
    interrupt(&child);
    let ran = finish(child).expect(130);
    error_of(&ran, "interrupted");
    before.expect_unchanged(&fixture);
    // The same from an archive.
    let tar = fixture.beside("a.tar");
    shell(&source, "tar -cf ../a.tar .");
    let child = super::traced(&fixture, &slow, &arguments(&tar, "1.0", &[]))?.spawn().unwrap();
    super::wait_until("objects are made", || super::objects(&fixture).len() > 50);
    interrupt(&child);
    error_of(&finish(child).expect(130), "interrupted");
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_silent_pipe_can_be_given_up() -> Outcome {
    use std::io::Write;
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let tar = shell(&fixture.beside("source"), "tar -cf - .");
    let before = super::Traces::of(&fixture);
    let mut command = fixture.command();
    command.args(arguments("-", "1.0", &[])).stdin(std::process::Stdio::piped());
    let mut child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&tar[..tar.len() / 2]).unwrap();
    super::wait_until("it works", || !super::objects(&fixture).is_empty());
    interrupt(&child);
    error_of(&finish(child).expect(130), "interrupted");
    drop(input);
    before.expect_unchanged(&fixture);
    Ok(())
}

fn a_closed_pipe_is_no_error() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    for (version, json) in [("1.0", true), ("1.1", false)] {
        let mut command = fixture.command();
        let source = fixture.beside("source");
        command.args(json.then_some("--json")).arg("import").arg(source).args(["--version", version]);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        command.stdout(writer).stderr(std::process::Stdio::piped());
        crate::support::Ran::of(&command.output().unwrap()).ok();
    }
    assert_eq!(names_in(fixture.path("versions"))[1..], ["v1.0", "v1.1"]);
    Ok(())
}
