//! The input as choices: bytes off its front; past its end every choice is 0.

use crate::dice::Dice;

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Input<'d> {
    rest: &'d [u8],
}

impl<'d> Input<'d> {
    pub fn new(data: &'d [u8]) -> Input<'d> {
        Input { rest: data }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.rest.split_off_first().copied().unwrap_or(0)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Up to `most` bytes.
    pub fn take(&mut self, most: usize) -> &'d [u8] {
        let (taken, rest) = self.rest.split_at(most.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Everything.
    pub fn rest(self) -> &'d [u8] {
        self.rest
    }
}

/// Where a stream is cut: key 0 behind each byte, the others by chance, in short pieces or in long ones.
pub fn lengths(key: u8, total: usize) -> Vec<usize> {
    let longest = match key {
        0 => 1,
        key if key < 128 => 12,
        _ => 900,
    };
    let mut dice = Dice(u64::from(key));
    let (mut left, mut lengths) = (total, Vec::new());
    while left > 0 {
        let length = (1 + dice.below(longest)).min(left);
        lengths.push(length);
        left -= length;
    }
    lengths
}
