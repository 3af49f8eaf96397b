//! `init`

use clap::Args;
use serde::Serialize;
use tope_store::error::Result;
use tope_store::ops;
use tope_store::store::create::CreateOptions;

use crate::context::Context;
use crate::exit::Exit;

/// Create a store, unless there is one
#[derive(Debug, Args)]
pub struct Arguments {
    /// Accept a network or FUSE file system, whose locks and renames may promise less
    #[arg(long)]
    allow_network_fs: bool,
}

#[derive(Serialize)]
struct Document {
    root: String,
    created: bool,
    squash: bool,
}

pub fn run(context: &Context, arguments: &Arguments) -> Result<Exit> {
    let options = CreateOptions { allow_network_fs: arguments.allow_network_fs };
    let (store, report) = ops::init::init(context.layout(), context.settings(), options)?;
    let root = store.root().path().display().to_string();
    let document = Document { root: root.clone(), created: report.created, squash: report.squash };
    context.answer(&document, |out| match report.created {
        true => writeln!(out, "created a store in {root}"),
        false => writeln!(out, "there is a store in {root} already"),
    })?;
    if report.created && report.squash {
        context.say(
            "everything in it will belong to you: owners, set-id bits and file capabilities are recorded, not applied",
        );
    }
    Ok(Exit::Done)
}
