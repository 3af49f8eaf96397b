//! The bytes of a tar, decompressed and counted.
//!
//! **Invariant:** every byte that leaves a [`Stream`] was counted against the limits, and after an error nothing more
//! is asked of the decoder.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Refusal, Result, Shown};
use crate::model::units::readable_size;

use super::format::Format;
use super::header::BLOCK;
use super::limits::{Budget, Limits};
use super::{BEGINNING, END};

/// Blocks of zeros that may follow the end of an archive: tapes were padded to records; nobody needs more.
const MAX_PADDING_BYTES: u64 = 64 << 20;

const BUFFER_BYTES: usize = 64 << 10;

/// A tar's bytes in order.
pub(super) struct Stream<'a> {
    decoder: Box<dyn Read>,
    consumed: Arc<AtomicU64>,
    limits: &'a Limits,
    budget: Budget,
    /// The member that is being read, for messages.
    member: Vec<u8>,
    failed: bool,
}

impl<'a> Stream<'a> {
    /// Starts to decode.
    pub(super) fn open(format: Format, source: Box<dyn Read + Send>, limits: &'a Limits) -> Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let source = Counted { source, count: Arc::clone(&consumed) };
        let source = BufReader::with_capacity(BUFFER_BYTES, source);
        let decoder: Box<dyn Read> = match format {
            Format::Tar => Box::new(source),
            Format::TarGz => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Format::TarXz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, true, limits.xz_memory_kib())),
            Format::TarZst => {
                let configured = zstd::stream::read::Decoder::with_buffer(source).and_then(|mut decoder| {
                    decoder.window_log_max(limits.zstd_window_log())?;
                    Ok(decoder)
                });
                Box::new(configured.map_err(|error| decode_error(b"", &error, limits))?)
            }
            Format::Zip => {
                return Err(Error::Usage("a zip cannot be read as a stream: its directory is at its end".into()));
            }
        };
        let budget = Budget::default();
        Ok(Self { decoder, consumed, limits, budget, member: Vec::new(), failed: false })
    }

    /// Names the member that is read next, for messages.
    pub(super) fn set_member(&mut self, path: &[u8]) {
        path.clone_into(&mut self.member);
    }

    /// The limits that the stream is held to.
    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Checks a declared size; see [`Budget::declare`].
    pub(super) fn declare(&self, path: &[u8], size: u64) -> Result<()> {
        self.budget.declare(self.limits, path, size)
    }

    /// Counts bytes that come from no stream: the holes of a sparse file.
    pub(super) fn produce(&mut self, amount: u64) -> Result<()> {
        self.budget.produce(self.limits, amount, self.consumed.load(Ordering::Relaxed))
    }

    /// Reads some bytes; none at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.failed {
            return Err(self.error("cannot be read on after an error"));
        }
        let read = match self.decoder.read(buffer) {
            Ok(read) => read,
            Err(error) => {
                self.failed = true;
                return Err(decode_error(&self.member, &error, self.limits));
            }
        };
        self.produce(read as u64)?;
        Ok(read)
    }

    /// Fills the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Source`] if the archive ends before it is full.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<()> {
        if self.fill_or_end(buffer)? { Ok(()) } else { Err(self.cut()) }
    }

    /// The next block, or `false` if the archive ends right here.
    pub(super) fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        self.fill_or_end(block)
    }

    /// Passes over bytes.
    pub(super) fn skip(&mut self, mut amount: u64) -> Result<()> {
        let mut buffer = [0; 8 << 10];
        while amount > 0 {
            let wanted = usize::try_from(amount).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.read(&mut buffer[..wanted])?;
            if read == 0 {
                return Err(self.cut());
            }
            amount -= read as u64;
        }
        Ok(())
    }

    /// Reads to the end of the compressed stream, whose checksum is compared there. Only zeros may come.
    pub(super) fn finish(mut self) -> Result<()> {
        END.clone_into(&mut self.member);
        let (mut buffer, mut padding) = (vec![0; BUFFER_BYTES], 0);
        loop {
            let read = self.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            padding += read as u64;
            if buffer[..read].iter().any(|b| *b != 0) {
                return Err(self.error("something follows the archive's end marker (two archives in one?)"));
            }
            if padding > MAX_PADDING_BYTES {
                return Err(self.error("the archive's end is padded without end"));
            }
        }
    }

    /// The archive is broken at the present place.
    pub(super) fn error(&self, problem: &str) -> Error {
        broken(&self.member, problem)
    }

    fn fill_or_end(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(self.cut()),
                read => filled += read,
            }
        }
        Ok(true)
    }

    /// The archive ends too early.
    pub(super) fn cut(&self) -> Error {
        self.error("the archive is cut off here")
    }
}

fn broken(member: &[u8], problem: &str) -> Error {
    Error::source(if member.is_empty() { BEGINNING } else { member }, problem)
}

fn decode_error(member: &[u8], error: &io::Error, limits: &Limits) -> Error {
    let text = error.to_string();
    if error.kind() == io::ErrorKind::OutOfMemory || text.contains("too much memory") {
        let message = format!(
            "decompressing takes more than {} of memory (import.limits.decoder_memory; {})",
            readable_size(limits.decoder_memory_bytes),
            Shown::text(&text)
        );
        let hint = "pack it with a smaller window or dictionary (zstd --long=27, xz -9), or unpack it by its own \
                    program: zstd --long=31 -dc FILE | tope-store import - --version VERSION";
        return Error::refused_with(Refusal::UnsafeArchive, message, hint);
    }
    match error.raw_os_error() {
        Some(number) => Error::io("read the archive within", path_of(member), io::Error::from_raw_os_error(number)),
        // What comes behind is taken for one more compressed stream.
        None if member == END => {
            let problem = "the compressed archive is cut off or damaged at its end, or something else follows it";
            broken(member, &format!("{problem}: {}", Shown::text(&text)))
        }
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            broken(member, "the compressed archive is cut off here")
        }
        None => broken(member, &format!("the compressed archive is damaged: {}", Shown::text(&text))),
    }
}

fn path_of(member: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(member).into()
}

/// Counts what goes into the decoder, and repeats interrupted calls: decoders lose their place on an error.
struct Counted {
    source: Box<dyn Read + Send>,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => {
                    self.count.fetch_add(read as u64, Ordering::Relaxed);
                    return Ok(read);
                }
                Err(error) => return Err(error),
            }
        }
    }
}
