//! How fast the demo plays: one factor over every pause.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace(f64);

impl Pace {
    /// Above 0 and at most 1000, so that no pause overflows and none turns into a busy loop that lasts.
    pub fn parse(written: &str) -> Result<Pace, String> {
        match written.parse::<f64>() {
            Ok(speed) if (0.01..=1000.0).contains(&speed) => Ok(Pace(speed)),
            _ => Err("must be a number from 0.01 to 1000".to_owned()),
        }
    }

    pub fn times(speed: u16) -> Pace {
        Pace(f64::from(speed))
    }

    /// A pause that lasts this long at speed 1.
    pub fn pause(self, milliseconds: u32) -> Duration {
        Duration::from_secs_f64(f64::from(milliseconds) / 1000.0 / self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_shrink_with_speed_and_nonsense_is_no_speed() {
        assert_eq!(Pace::parse("2").map(|pace| pace.pause(1000)), Ok(Duration::from_millis(500)));
        assert_eq!(Pace::parse("0.5").map(|pace| pace.pause(1000)), Ok(Duration::from_secs(2)));
        for written in ["", "fast", "0", "-1", "NaN", "inf", "1e9"] {
            assert!(Pace::parse(written).is_err(), "{written}");
        }
    }
}
