//! Hashing beside the walk: short streams are hashed in place, long ones on a thread of their own, so that reading and scanning
//! hide behind the hash.

use fodder_model::hash::{Hash, HashAlgorithm, Hasher};
use std::{
    io::{self, Write},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

/// Streams up to this many bytes are not worth a thread.
const INLINE_LIMIT: u64 = 1 << 20;

/// Size of the pieces that go to the thread.
const PIECE_SIZE: usize = 256 * 1024;

/// Pieces under way at once; with their size, the bound on memory.
const PIECES: usize = 8;

/// A hash of everything that is written.
pub(super) struct HashSink {
    written: u64,
    state: State,
}

enum State {
    Inline(Hasher),
    Threaded { piece: Vec<u8>, full: SyncSender<Vec<u8>>, empty: Receiver<Vec<u8>>, thread: JoinHandle<Hasher> },
    Moved,
}

impl HashSink {
    pub(super) fn new(algorithm: HashAlgorithm) -> Self {
        HashSink { written: 0, state: State::Inline(Hasher::new(algorithm)) }
    }

    /// Starts the thread. The pieces go round: filled here, hashed there, sent back empty.
    fn start_thread(mut hasher: Hasher) -> io::Result<State> {
        let (full, receiver) = sync_channel::<Vec<u8>>(PIECES);
        let (give_back, empty) = sync_channel::<Vec<u8>>(PIECES + 1);
        for _ in 0..PIECES {
            let _ = give_back.send(Vec::with_capacity(PIECE_SIZE));
        }
        let thread = std::thread::Builder::new().name("hash".to_owned()).spawn(move || {
            while let Ok(mut piece) = receiver.recv() {
                hasher.update(&piece);
                piece.clear();
                // Nobody takes it back when the walk is over or has failed.
                let _ = give_back.send(piece);
            }
            hasher
        })?;
        Ok(State::Threaded { piece: Vec::with_capacity(PIECE_SIZE), full, empty, thread })
    }

    pub(super) fn finish(self) -> io::Result<Hash> {
        match self.state {
            State::Inline(hasher) => Ok(hasher.finish()),
            State::Threaded { piece, full, empty: _, thread } => {
                let gone = |_| io::Error::other("the hashing thread ended early");
                full.send(piece).map_err(gone)?;
                drop(full);
                thread.join().map(Hasher::finish).map_err(|_| io::Error::other("the hashing thread panicked"))
            }
            State::Moved => Err(io::Error::other("the hashing thread could not be started")),
        }
    }
}

impl Write for HashSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.written += data.len() as u64;
        if self.written > INLINE_LIMIT
            && matches!(self.state, State::Inline(_))
            && let State::Inline(hasher) = std::mem::replace(&mut self.state, State::Moved)
        {
            self.state = Self::start_thread(hasher)?;
        }
        match &mut self.state {
            State::Inline(hasher) => {
                hasher.update(data);
                Ok(data.len())
            }
            State::Threaded { piece, full, empty, thread: _ } => {
                let taken = data.len().min(PIECE_SIZE - piece.len());
                piece.extend_from_slice(&data[..taken]);
                if piece.len() == PIECE_SIZE {
                    let next = empty.recv().map_err(|_| io::Error::other("the hashing thread ended early"))?;
                    full.send(std::mem::replace(piece, next))
                        .map_err(|_| io::Error::other("the hashing thread ended early"))?;
                }
                Ok(taken)
            }
            State::Moved => Err(io::Error::other("the hashing thread could not be started")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_gives_the_same_hash_at_every_size() {
        for size in [0, 1, INLINE_LIMIT as usize, INLINE_LIMIT as usize + 1, 5 * PIECE_SIZE, 5_000_001] {
            let data: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
            let mut sink = HashSink::new(HashAlgorithm::Sha256);
            for piece in data.chunks(70_001) {
                sink.write_all(piece).unwrap();
            }
            assert_eq!(sink.finish().unwrap(), Hash::of(HashAlgorithm::Sha256, &data), "{size}");
        }
    }
}
