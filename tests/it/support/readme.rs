//! Blocks of commands in README.md.
//!
//! A block that begins with ```` ```sh ```` is run as it stands, all of them in one shell, in order. One that begins with
//! ```` ```sh WORD ```` needs more than an empty directory, and has a test of its own by that word.

/// All blocks: the word behind `sh` (empty for those run together) and the commands.
pub fn blocks() -> Vec<(String, String)> {
    let text = include_str!("../../../README.md");
    let mut blocks = Vec::new();
    for part in text.split("\n```sh").skip(1) {
        let (word, rest) = part.split_once('\n').expect("a block has lines");
        let end = rest.find("\n```").expect("a block ends");
        blocks.push((word.trim().to_owned(), format!("{}\n", &rest[..end])));
    }
    blocks
}

/// The only block with this word.
pub fn block(word: &str) -> String {
    let mut found: Vec<String> = blocks().into_iter().filter(|(own, _)| own == word).map(|(_, text)| text).collect();
    assert_eq!(found.len(), 1, "blocks of the README marked {word}");
    found.remove(0)
}
