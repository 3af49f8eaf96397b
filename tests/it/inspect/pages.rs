//! `completions`, `man`, `rebuild-index`

use crate::support::{Fixture, Outcome, tree};

tests![completions_and_pages_need_no_store, rebuilding_the_index_counts_what_is_in_it];

fn completions_and_pages_need_no_store() -> Outcome {
    let fixture = Fixture::bare();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = fixture.run(&["completions", shell]).ok().stdout;
        assert!(script.contains("tope-store") && script.contains("rebuild-index"), "{shell}");
    }
    fixture.run(&["--json", "completions", "bash"]).expect(2);
    assert!(fixture.run(&["man"]).ok().stdout.contains("tope\\-store"));
    let out = fixture.beside("share/man1");
    let written = fixture.json(&["man", "--out", out.to_str().unwrap()]);
    let pages: Vec<&str> = written["pages"].as_array().unwrap().iter().map(|page| page.as_str().unwrap()).collect();
    for page in ["tope-store.1", "tope-store-import.1", "tope-store-rebuild-index.1"] {
        assert!(pages.contains(&page), "{page}");
    }
    let mut names: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut expected = pages.clone();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let page = fixture.run(&["man", "diff"]).ok().stdout;
    assert_eq!(page, std::fs::read_to_string(out.join("tope-store-diff.1")).unwrap());
    assert!(page.contains(".TH tope-store-diff 1"), "{page}");
    fixture.run(&["man", "nothing"]).expect(3);
    Ok(())
}

fn rebuilding_the_index_counts_what_is_in_it() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    fixture.import("source", "1");
    fixture.import("source", "2");
    std::fs::write(fixture.path("store/manifests/v3"), "no manifest").unwrap();
    let list = fixture.json(&["list"]);
    let rebuilt = fixture.json(&["rebuild-index"]);
    let field = |name: &str| rebuilt[name].as_u64().unwrap();
    assert_eq!((field("versions"), field("trees"), field("objects"), field("events")), (2, 7, 5, 3));
    assert_eq!(field("entries"), 13);
    assert_eq!(rebuilt["damaged"], serde_json::json!(["v3"]));
    assert_eq!(fixture.json(&["list"]), list);
    Ok(())
}
