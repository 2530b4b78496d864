//! What is fuzzed: each function reads bytes as a stranger's, and panics where what
//! comes of them is not what may.
//!
//! They are run by the targets of `fuzz/` for as long as one likes, and by the tests
//! below for a little while: on each file of the corpus and on what a generator with a
//! seed makes of these.

pub use crate::engine::fuzz::sql;
pub use crate::server::flight::fuzz::{commands, handles, ingest};
pub use crate::server::tenant::fuzz::headers;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::Path;

    use proptest::prelude::Rng;
    use proptest::test_runner::{RngAlgorithm, TestRng};

    /// The longest input that is made.
    const BYTES_MAX: usize = 4_096;

    /// Bytes that decoders take for something: lengths, ends, quotes.
    const TELLING: [&[u8]; 12] = [
        &[0],
        &[0xff],
        &[0x7f],
        &[0xff; 4],
        &[0xff, 0xff, 0xff, 0x7f],
        &[0xff; 8],
        &[0, 0, 0, 0, 0, 0, 0, 0x80],
        &[1, 0, 0, 0],
        b"'",
        b"\"",
        b";",
        b"(",
    ];

    /// Choices that are the same on every machine.
    struct Dice(TestRng);

    impl Dice {
        fn below(&mut self, limit: usize) -> usize {
            (self.0.next_u64() % limit.max(1) as u64) as usize
        }
    }

    /// One of `corpus`, changed in a few places.
    fn mutated(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
        let mut bytes = corpus[dice.below(corpus.len())].clone();
        for _ in 0..=dice.below(4) {
            let at = dice.below(bytes.len() + 1);
            match dice.below(7) {
                0 if at < bytes.len() => bytes[at] ^= 1 << dice.below(8),
                1 if at < bytes.len() => bytes[at] = dice.below(256) as u8,
                2 => {
                    let telling = TELLING[dice.below(TELLING.len())];
                    bytes.splice(at..at, telling.iter().copied());
                }
                3 => {
                    let telling = TELLING[dice.below(TELLING.len())];
                    let end = (at + telling.len()).min(bytes.len());
                    bytes.splice(at..end, telling.iter().copied());
                }
                4 => {
                    let end = at + dice.below(bytes.len() - at + 1);
                    bytes.drain(at..end);
                }
                5 => {
                    let end = at + dice.below(bytes.len() - at + 1);
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => {
                    let other = &corpus[dice.below(corpus.len())];
                    let from = dice.below(other.len() + 1);
                    let end = from + dice.below(other.len() - from + 1);
                    bytes.splice(at..at, other[from..end].iter().copied());
                }
            }
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    /// Runs `target` on its corpus and on so many inputs that are made of it.
    fn run(name: &str, target: fn(&[u8]), inputs: usize) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(name);
        let files = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.collect();
        // The same inputs come of the same files.
        files.sort();
        let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(!corpus.is_empty());
        let check = |input: &[u8]| {
            if catch_unwind(AssertUnwindSafe(|| target(input))).is_err() {
                let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{name} fails on this, which belongs into fuzz/corpus/{name}: {hex}");
            }
        };
        for input in &corpus {
            check(input);
        }
        let number = |name: &str, default: usize| match std::env::var(name) {
            Ok(text) => text.parse().unwrap(),
            Err(_unset) => default,
        };
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&number("FUZZ_SEED", 7).to_le_bytes());
        let mut dice = Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        for _ in 0..inputs * number("FUZZ_TIMES", 1) {
            check(&mutated(&corpus, &mut dice));
        }
    }

    #[test]
    fn headers_of_strangers_are_read_or_refused() {
        run("headers", super::headers, 100_000);
    }

    #[test]
    fn texts_of_strangers_are_of_a_known_kind_or_refused() {
        run("sql", super::sql, 30_000);
    }

    #[test]
    fn handles_of_strangers_open_for_nobody() {
        run("handles", super::handles, 3_000);
    }

    #[test]
    fn messages_of_strangers_are_read_or_refused() {
        run("commands", super::commands, 50_000);
    }

    #[test]
    fn rows_of_strangers_are_read_or_refused() {
        run("ingest", super::ingest, 20_000);
    }
}
