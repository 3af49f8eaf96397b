//! `man`. The document, with `--out`: `pages[]`, the file names that were written.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use serde::Serialize;
use tope_store::error::{Error, Result};
use tope_store::fsys::{durable, rooted};
use tope_store::layout::{PUBLIC_DIR_MODE, PUBLIC_FILE_MODE};

use crate::cli::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::render::human;

/// Write the manual page of a command to standard output, or all pages to a directory
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tope-store man rollback | man -l -
  tope-store man --out /usr/share/man/man1")]
pub struct Arguments {
    /// The command; the page about all of them unless one is given
    #[arg(conflicts_with = "out")]
    command: Option<String>,
    /// Write all pages here
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document {
    pages: Vec<String>,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let pages = pages()?;
    let Some(out) = &arguments.out else {
        if context.global().json {
            return Err(Error::Usage("a manual page is no JSON document: leave out --json, or give --out".into()));
        }
        let wanted = arguments.command.as_ref().map_or(file_name(None), |command| file_name(Some(command)));
        let page = pages
            .iter()
            .find(|(name, _)| *name == wanted)
            .ok_or_else(|| Error::NotFound { what: "command", name: arguments.command.clone().unwrap_or_default() })?;
        context.raw(|out| out.write_all(&page.1))?;
        return Ok(Exit::Done);
    };
    let dir = rooted::open_or_create(out, PUBLIC_DIR_MODE)?;
    for (name, page) in &pages {
        durable::write(&dir, name, page, PUBLIC_FILE_MODE)?;
    }
    let document = Document { pages: pages.into_iter().map(|(name, _)| name).collect() };
    let count = human::count(document.pages.len() as u64, "page");
    context.answer(&document, |stdout| writeln!(stdout, "wrote {count} to {}", out.display()))?;
    Ok(Exit::Done)
}

fn file_name(command: Option<&str>) -> String {
    match command {
        Some(command) => format!("tope-store-{command}.1"),
        None => "tope-store.1".to_owned(),
    }
}

/// All pages with their file names.
fn pages() -> Result<Vec<(String, Vec<u8>)>> {
    let mut top = Cli::command();
    // Fills in what commands inherit, and their full names.
    top.build();
    let mut pages = vec![(file_name(None), page(top.clone())?)];
    for command in top.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help") {
        pages.push((file_name(Some(command.get_name())), page(command.clone())?));
    }
    Ok(pages)
}

fn page(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    let source = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
    let rendered = clap_mangen::Man::new(command).source(source).render(&mut page);
    rendered.map_err(|error| Error::io("write", "a manual page", error))?;
    Ok(page)
}
