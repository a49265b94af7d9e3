//! A layer's bytes on their way to the worker that unpacks them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::image::{
    document::Blob,
    registry::{RegistryError, Repository},
};

/// Pieces between the network and a worker: enough to keep both busy, little enough for the memory budget.
const PIECES: usize = 4;

/// The transfer of one blob, to be awaited while a worker unpacks what it brings.
#[derive(Debug)]
pub(in crate::image) struct Download<'a> {
    repository: &'a Repository,
    blob: Blob,
    sender: mpsc::Sender<Bytes>,
}

impl Download<'_> {
    /// The transfer, and what it brings as a worker reads it.
    pub(super) fn of(repository: &Repository, blob: Blob) -> (Download<'_>, LayerInput) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let pieces = Pieces {
            receiver,
            piece: Bytes::new(),
        };
        let download = Download {
            repository,
            blob,
            sender,
        };
        (download, LayerInput::Pieces(pieces))
    }

    pub(in crate::image) async fn run(self) -> Result<(), RegistryError> {
        // The sender goes with `self` at the end, which is how the worker learns that nothing more comes.
        self.repository.blob(&self.blob, &self.sender).await
    }
}

/// A layer's bytes as a worker thread reads them.
#[derive(Debug)]
pub(in crate::image) enum LayerInput {
    Pieces(Pieces),
    File(BufReader<io::Take<File>>),
}

impl LayerInput {
    pub(super) fn file(file: File, length: u64) -> LayerInput {
        LayerInput::File(BufReader::with_capacity(128 << 10, file.take(length)))
    }
}

impl Read for LayerInput {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            LayerInput::Pieces(pieces) => pieces.read(into),
            LayerInput::File(file) => file.read(into),
        }
    }
}

impl BufRead for LayerInput {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            LayerInput::Pieces(pieces) => pieces.fill_buf(),
            LayerInput::File(file) => file.fill_buf(),
        }
    }

    fn consume(&mut self, used: usize) {
        match self {
            LayerInput::Pieces(pieces) => pieces.consume(used),
            LayerInput::File(file) => file.consume(used),
        }
    }
}

/// The receiving end of a transfer. When the sender goes without having sent everything, the end comes early, which
/// the size and the digest tell.
#[derive(Debug)]
pub(in crate::image) struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => break,
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, used: usize) {
        bytes::Buf::advance(&mut self.piece, used);
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.len().min(into.len());
        if let (Some(into), Some(piece)) = (into.get_mut(..length), self.piece.get(..length)) {
            into.copy_from_slice(piece);
        }
        self.consume(length);
        Ok(length)
    }
}
