//! Standard input that can be given up.
//!
//! A read from a silent pipe comes back when the other side says something, not when the user presses Ctrl-C. So a
//! thread of its own reads, and whoever waits for it looks now and then whether it is still worth it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Bytes per block; a pipe holds no more by default.
const BLOCK_BYTES: usize = 64 << 10;
/// Blocks that are read ahead.
const BLOCKS: usize = 16;
/// How often the wish to stop is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// Reads standard input until its end or until the user asks to stop.
pub struct StandardInput {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    taken: usize,
    interrupted: Arc<AtomicBool>,
}

impl StandardInput {
    /// Begins to read.
    pub fn new(interrupted: Arc<AtomicBool>) -> Self {
        let (sender, blocks) = sync_channel(BLOCKS);
        std::thread::spawn(move || read_all(&sender));
        Self { blocks, block: Vec::new(), taken: 0, interrupted }
    }
}

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.block.len() {
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(io::Error::other("interrupted"));
            }
            match self.blocks.recv_timeout(PATIENCE) {
                Ok(block) => (self.block, self.taken) = (block?, 0),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(0),
            }
        }
        let count = (&self.block[self.taken..]).read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

/// Sends blocks until the end, an error, or until nobody listens any longer.
fn read_all(sender: &SyncSender<io::Result<Vec<u8>>>) {
    let mut input = io::stdin().lock();
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        let read = match input.read(&mut block) {
            Ok(0) => return,
            Ok(count) => {
                block.truncate(count);
                Ok(block)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let last = read.is_err();
        if sender.send(read).is_err() || last {
            return;
        }
    }
}
