//! The way of a layer's bytes: received → hashed → decompressed → hashed → read as an archive. One buffer for each
//! stage, so memory does not depend on the layer.

use std::io::{self, BufRead, Chain, Cursor, Read};

use super::budget::{Budget, OverBudget};
use crate::image::digest::{Digest, Hasher};

const BUFFER: usize = 128 << 10;
/// 8 MiB is what every decoder must offer (RFC 8878) and what `zstd -19` uses; four layers at once must fit into the
/// memory budget of a pull.
const ZSTD_WINDOW_LOG: u32 = 23;

/// Hashes what passes through, and refuses to pass more than was announced.
#[derive(Debug)]
pub struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    /// Bytes at the front of the inner buffer that are in the hash already.
    ahead: usize,
    passed: u64,
    announced: u64,
}

/// More bytes came than the descriptor announced.
#[derive(Debug, thiserror::Error)]
#[error("it is longer than the {0} bytes its descriptor announces")]
pub struct TooLong(pub u64);

impl<R: BufRead> Hashed<R> {
    pub fn new(inner: R, announced: u64) -> Hashed<R> {
        Hashed {
            inner,
            hasher: Hasher::new(),
            ahead: 0,
            passed: 0,
            announced,
        }
    }

    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Hashes what is left without using it, and gives digest and length of the whole.
    pub fn finish(mut self) -> io::Result<(Digest, u64)> {
        loop {
            let rest = self.fill_buf()?.len();
            if rest == 0 {
                return Ok((self.hasher.finish(), self.passed));
            }
            self.consume(rest);
        }
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if let Some(new) = buffer.get(self.ahead..).filter(|new| !new.is_empty()) {
            if self.passed + buffer.len() as u64 > self.announced {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    TooLong(self.announced),
                ));
            }
            self.hasher.update(new);
            self.ahead = buffer.len();
        }
        Ok(buffer)
    }

    fn consume(&mut self, used: usize) {
        self.inner.consume(used);
        self.ahead = self.ahead.saturating_sub(used);
        self.passed += used as u64;
    }
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_from_buffer(self, into)
    }
}

/// How a layer is packed, told from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            // A skippable frame may come first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// The source with the bytes that were looked at put back in front.
type Restarted<R> = Chain<Cursor<Vec<u8>>, Hashed<R>>;

enum Decoder<R: BufRead> {
    Plain(Restarted<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Restarted<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Restarted<R>>>),
}

/// An unpacked layer's bytes and their digest, within the budget.
pub struct Unpacked<R: BufRead> {
    decoder: Decoder<R>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    hasher: Hasher,
    produced: u64,
    limits: Limits,
    compression: Compression,
}

struct Limits {
    bytes: u64,
    ratio: u64,
    ratio_free: u64,
}

impl<R: BufRead> std::fmt::Debug for Unpacked<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked")
            .field("compression", &self.compression)
            .field("produced", &self.produced)
            .finish_non_exhaustive()
    }
}

impl<R: BufRead> Unpacked<R> {
    pub fn new(mut source: Hashed<R>, budget: &Budget) -> io::Result<Unpacked<R>> {
        let mut start = Vec::with_capacity(4);
        source.by_ref().take(4).read_to_end(&mut start)?;
        let compression = Compression::of(&start);
        let source = Cursor::new(start).chain(source);
        let decoder = match compression {
            Compression::None => Decoder::Plain(source),
            Compression::Gzip => Decoder::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(source))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Decoder::Zstd(Box::new(decoder))
            }
        };
        Ok(Unpacked {
            decoder,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            hasher: Hasher::new(),
            produced: 0,
            limits: Limits {
                bytes: budget.bytes,
                ratio: budget.ratio,
                ratio_free: budget.ratio_free,
            },
            compression,
        })
    }

    fn source(&self) -> &Hashed<R> {
        match &self.decoder {
            Decoder::Plain(source) => source.get_ref().1,
            Decoder::Gzip(decoder) => decoder.get_ref().get_ref().1,
            Decoder::Zstd(decoder) => decoder.get_ref().get_ref().1,
        }
    }

    fn refill(&mut self) -> io::Result<()> {
        let read = match &mut self.decoder {
            Decoder::Plain(decoder) => decoder.read(&mut self.buffer),
            Decoder::Gzip(decoder) => decoder.read(&mut self.buffer),
            Decoder::Zstd(decoder) => decoder.read(&mut self.buffer),
        }?;
        (self.start, self.end) = (0, read);
        self.hasher.update(self.buffer.get(..read).unwrap_or_default());
        self.produced += read as u64;
        if self.produced > self.limits.bytes {
            return Err(over(OverBudget::Bytes(self.limits.bytes)));
        }
        let consumed = self.source().passed().max(1);
        if self.produced > self.limits.ratio_free && self.produced / consumed > self.limits.ratio {
            return Err(over(OverBudget::Ratio(self.limits.ratio)));
        }
        Ok(())
    }

    /// Reads to the end, past the end of the archive, and gives the digests of both forms and their lengths.
    pub fn finish(mut self) -> io::Result<Digests> {
        loop {
            let rest = self.fill_buf()?.len();
            if rest == 0 {
                break;
            }
            self.consume(rest);
        }
        let source = match self.decoder {
            Decoder::Plain(source) => source,
            Decoder::Gzip(decoder) => decoder.into_inner(),
            Decoder::Zstd(decoder) => decoder.finish(),
        };
        let (_, source) = source.into_inner();
        let (blob, blob_size) = source.finish()?;
        Ok(Digests {
            blob,
            blob_size,
            diff_id: self.hasher.finish(),
            size: self.produced,
        })
    }
}

fn over(budget: OverBudget) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, budget)
}

impl<R: BufRead> BufRead for Unpacked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(self.buffer.get(self.start..self.end).unwrap_or_default())
    }

    fn consume(&mut self, used: usize) {
        self.start = (self.start + used).min(self.end);
    }
}

impl<R: BufRead> Read for Unpacked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_from_buffer(self, into)
    }
}

fn read_from_buffer(from: &mut impl BufRead, into: &mut [u8]) -> io::Result<usize> {
    let buffer = from.fill_buf()?;
    let length = buffer.len().min(into.len());
    if let (Some(into), Some(buffer)) = (into.get_mut(..length), buffer.get(..length)) {
        into.copy_from_slice(buffer);
    }
    from.consume(length);
    Ok(length)
}

/// What a layer's bytes turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digests {
    pub blob: Digest,
    pub blob_size: u64,
    pub diff_id: Digest,
    pub size: u64,
}
