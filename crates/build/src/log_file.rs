//! The log as it is kept: every byte of an ordinary one. Of one that is very large the beginning and the end are kept, and of a
//! very long line the beginning; what is left out is said in its place.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
};

/// How much of the limit is for the end of the log, which says why a build failed: at most this, and at most a quarter.
const END_BYTES: u64 = 1 << 20;

pub(crate) struct LogFile {
    file: File,
    /// Bytes that may still be written as they come; `None` is without limit.
    room: Option<u64>,
    line_limit: Option<u64>,
    /// Bytes of the current line that were kept, and that were not.
    line_kept: u64,
    line_left_out: u64,
    /// The end, once there is no room: the last bytes, and how many came before them and were left out.
    end: VecDeque<u8>,
    end_limit: usize,
    left_out: u64,
}

impl LogFile {
    pub(crate) fn new(file: File, size_limit: Option<u64>, line_limit: Option<u64>) -> Self {
        let end_limit = size_limit.map_or(0, |limit| END_BYTES.min(limit / 4));
        LogFile {
            file,
            room: size_limit.map(|limit| limit - end_limit),
            line_limit,
            line_kept: 0,
            line_left_out: 0,
            end: VecDeque::new(),
            end_limit: usize::try_from(end_limit).unwrap_or(0),
            left_out: 0,
        }
    }

    /// Takes a piece of the log.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let Some(limit) = self.line_limit else { return self.keep(piece) };
        for line in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match line.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (line, false),
            };
            let room = usize::try_from(limit.saturating_sub(self.line_kept)).unwrap_or(usize::MAX);
            let (kept, left_out) = text.split_at(text.len().min(room));
            self.keep(kept)?;
            self.line_kept += kept.len() as u64;
            self.line_left_out += left_out.len() as u64;
            if ends {
                self.end_line()?;
                self.keep(b"\n")?;
            }
        }
        Ok(())
    }

    /// Everything that is still to be written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_line()?;
        if self.left_out > 0 {
            let words =
                format!("\n[fodder: {} bytes of the log were left out here, see --limit log-file]\n", self.left_out);
            self.file.write_all(words.as_bytes())?;
        }
        let (first, second) = self.end.as_slices();
        self.file.write_all(first)?;
        self.file.write_all(second)
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line_kept = 0;
        match std::mem::take(&mut self.line_left_out) {
            0 => Ok(()),
            count => {
                let words = format!("[fodder: {count} bytes of this line were left out, see --limit log-line]");
                self.keep(words.as_bytes())
            }
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.map_or(bytes.len(), |room| bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        let (now, later) = bytes.split_at(room);
        if !now.is_empty() {
            self.file.write_all(now)?;
            self.room = self.room.map(|room| room - now.len() as u64);
        }
        self.end.extend(later);
        let surplus = self.end.len().saturating_sub(self.end_limit);
        self.end.drain(..surplus);
        self.left_out += surplus as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};

    fn kept(size: Option<u64>, line: Option<u64>, pieces: &[&[u8]]) -> Vec<u8> {
        let mut file = tempfile::tempfile().unwrap();
        let mut log = LogFile::new(file.try_clone().unwrap(), size, line);
        for piece in pieces {
            log.write(piece).unwrap();
        }
        log.finish().unwrap();
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn an_ordinary_log_is_kept_to_the_byte() {
        let pieces: [&[u8]; 4] = [b"a\0b\xff\r\n", b"\n\n", b"no ", b"newline"];
        assert_eq!(kept(Some(1000), Some(100), &pieces), pieces.concat());
        assert_eq!(kept(None, None, &pieces), pieces.concat());
        let exact = vec![b'x'; 1000];
        assert_eq!(kept(Some(1000), None, &[&exact]), exact, "as long as it may be");
    }

    #[test]
    fn of_a_large_log_beginning_and_end_are_kept() {
        let log: Vec<u8> = (0..1000).flat_map(|number| format!("line {number:04}\n").into_bytes()).collect();
        let text = String::from_utf8(kept(Some(400), None, &log.chunks(7).collect::<Vec<_>>())).unwrap();
        assert!(text.starts_with("line 0000\nline 0001\n") && text.ends_with("line 0998\nline 0999\n"), "{text}");
        assert!(text.contains("\n[fodder: 9600 bytes of the log were left out here"), "{text}");
        assert!(text.len() < 400 + 100, "{}", text.len());
    }

    #[test]
    fn of_a_long_line_the_beginning_is_kept_and_the_next_line_is_whole() {
        let long = vec![b'x'; 5000];
        for size in [1, 7, 5000] {
            let mut pieces: Vec<&[u8]> = vec![b"short\n"];
            pieces.extend(long.chunks(size));
            pieces.push(b"\nnext\n");
            let text = String::from_utf8(kept(None, Some(10), &pieces)).unwrap();
            let words = "[fodder: 4990 bytes of this line were left out, see --limit log-line]";
            assert_eq!(text, format!("short\nxxxxxxxxxx{words}\nnext\n"));
        }
        let unended = String::from_utf8(kept(None, Some(10), &[&long])).unwrap();
        assert!(unended.starts_with("xxxxxxxxxx[fodder: 4990 bytes"), "{unended}");
    }
}
