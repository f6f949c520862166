//! The input as choices: bytes off its front; past its end every choice is 0.

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

/// SplitMix64: what no input needs to steer, and what has to be the same again.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() % bound.max(1) as u64) as usize
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
