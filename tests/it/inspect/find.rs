//! `find`

use serde_json::{Value, json};

use crate::support::{Fixture, Outcome, tree};

tests![paths_and_contents_are_found_over_all_versions, what_is_no_pattern_or_content_is_refused];

fn found(fixture: &Fixture, arguments: &[&str]) -> Vec<(String, Vec<String>)> {
    let document = fixture.json(&[&["find"], arguments].concat());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let found = document["found"].as_array().unwrap().iter();
    found.map(|f| (text(&f["path"]), f["versions"].as_array().unwrap().iter().map(text).collect())).collect()
}

fn paths_and_contents_are_found_over_all_versions() -> Outcome {
    let fixture = Fixture::new();
    for number in [1, 2, 3] {
        tree::release(fixture.beside("source"), number);
        std::fs::remove_file(fixture.beside("source/lib/common.so.1")).unwrap();
        fixture.import("source", &number.to_string());
    }
    let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let program = "bin/device-api".to_owned();
    assert_eq!(
        found(&fixture, &["device-api*"]),
        [
            (program.clone(), all(&["v1"])),
            (program.clone(), all(&["v2"])),
            (program.clone(), all(&["v3"])),
            ("services/device-api".to_owned(), all(&["v1", "v2", "v3"])),
        ]
    );
    assert_eq!(found(&fixture, &["/bin/d*", "--version", "2"]), [(program.clone(), all(&["v2"]))]);
    assert_eq!(found(&fixture, &["lib/*"])[0], ("lib/common.so".to_owned(), all(&["v1", "v2", "v3"])));
    let content = blake3::hash(b"#!/bin/sh\necho 2\n").to_hex();
    assert_eq!(found(&fixture, &["--content", &content[..12]]), [(program.clone(), all(&["v2"]))]);
    assert_eq!(found(&fixture, &["lib/*", "--content", &content]), []);
    let file = fixture.beside("source/lib/lock");
    assert_eq!(
        found(&fixture, &["--content-of", file.to_str().unwrap()]),
        [("lib/lock".to_owned(), all(&["v1", "v2", "v3"]))],
        "an empty file is a content as well"
    );
    let text = fixture.run(&["find", "device-api", "--version", "1", "--version", "3"]).ok().stdout;
    let cells: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        cells[0],
        ["-rwxr-xr-x", "17", &blake3::hash(b"#!/bin/sh\necho 1\n").to_hex()[..12], "bin/device-api", "v1"]
    );
    assert_eq!(cells.len(), 3);
    let names = fixture.run(&["find", "-z", "device-api"]).ok().stdout;
    assert_eq!(names, "bin/device-api\0services/device-api\0", "each path once");
    assert_eq!(found(&fixture, &["nothing"]), []);
    assert_eq!(fixture.json(&["find", "nothing"]), json!({"schema": 1, "found": []}));
    Ok(())
}

fn what_is_no_pattern_or_content_is_refused() -> Outcome {
    let fixture = Fixture::new();
    fixture.run(&["find", "[a"]).expect(2);
    fixture.run(&["find", "a//b"]).expect(2);
    fixture.run(&["find", "--content", "xyz"]).expect(2);
    fixture.run(&["find"]).expect(2);
    fixture.run(&["find", "a", "--version", "1"]).expect(3);
    fixture.run(&["find", "--content-of", "/nothing/here"]).expect(1);
    Ok(())
}
