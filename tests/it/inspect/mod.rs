//! Looking: `list`, `show`, `ls`, `cat`, `find`, `diff`, and what they answer without an index.

mod browse;
mod diff;
mod find;
mod list;
mod oracle;
mod pages;
mod trouble;

pub fn tests() -> Vec<libtest_mimic::Trial> {
    [browse::tests(), diff::tests(), find::tests(), list::tests(), oracle::tests(), pages::tests(), trouble::tests()]
        .into_iter()
        .flatten()
        .collect()
}
