//! Choices that a seed decides, the same on every machine.

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

pub struct Dice(TestRng);

impl Dice {
    /// The choices of `seed` for `purpose`.
    pub fn new(purpose: &str, seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        for (byte, letter) in bytes[8..].iter_mut().zip(purpose.bytes()) {
            *byte = letter;
        }
        Dice(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// One of `0..end`, each as likely but for what no test feels.
    pub fn below(&mut self, end: usize) -> usize {
        (self.0.next_u64() % end as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// The place of one of `weights`, as likely as it is heavy.
    pub fn weighted(&mut self, weights: &[usize]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (place, weight) in weights.iter().enumerate() {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return place,
            }
        }
        unreachable!("the choice is below the sum of the weights")
    }
}
