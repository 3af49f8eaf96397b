//! `import`

use crate::support::{Fixture, Outcome, tree};

tests![
    a_directory_becomes_a_tree_of_links,
    importing_the_same_again_writes_nothing,
    another_content_under_a_name_is_refused
];

fn a_directory_becomes_a_tree_of_links() -> Outcome {
    use std::os::unix::fs::MetadataExt;
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let report = fixture.import("source", "1.0.0");
    assert_eq!(report["version"], "v1.0.0");
    assert_eq!((&report["files"], &report["new_objects"]), (&6.into(), &5.into()), "the empty file is no object");
    tree::assert_same(&fixture.beside("source"), &fixture.path("versions/v1.0.0"));
    let links = |path: &str| std::fs::metadata(fixture.path(path)).unwrap().nlink();
    assert_eq!(links("versions/v1.0.0/lib/common.so"), 2);
    assert_eq!(links("versions/v1.0.0/lib/lock"), 1);
    Ok(())
}

fn importing_the_same_again_writes_nothing() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("source"), 1);
    let first = fixture.import("source", "1.0.0");
    let before = tree::describe(&fixture.path("store"), false);
    let again = fixture.import("source", "v1.0.0");
    assert_eq!((&again["already_there"], &again["digest"]), (&true.into(), &first["digest"]));
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        tree::describe(&fixture.path("store"), false).keys().collect::<Vec<_>>()
    );
    assert_eq!(before[&b"history"[..]], tree::describe(&fixture.path("store"), false)[&b"history"[..]]);
    Ok(())
}

fn another_content_under_a_name_is_refused() -> Outcome {
    let fixture = Fixture::new();
    tree::release(fixture.beside("one"), 1);
    tree::release(fixture.beside("two"), 2);
    fixture.import("one", "1.0.0");
    let ran = fixture
        .run(&[
            "--json".as_ref(),
            "import".as_ref(),
            fixture.beside("two").as_os_str(),
            "--version".as_ref(),
            "1.0.0".as_ref(),
        ])
        .expect(4);
    assert_eq!(ran.json()["error"]["kind"], "exists");
    tree::assert_same(&fixture.beside("one"), &fixture.path("versions/v1.0.0"));
    Ok(())
}
