//! What the benches of figures through the wire have in common. Each uses a part.

#![allow(dead_code)]

pub mod bare;
pub mod measure;
pub mod wire;

/// A result that can only be shown.
pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// `SplitMix64` of a seed and a row: what the values of made rows come from.
pub fn mixed(seed: u64, row: u64) -> u64 {
    let mut z = seed
        .wrapping_mul(0x2545_f491_4f6c_dd1d)
        .wrapping_add((row + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
