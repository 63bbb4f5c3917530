//! Durations and sizes as an operator writes them: `"250ms"`, `"8s"`, `"1h"`, `"2MiB"`.

use std::time::Duration;

use super::problem::Fault;

/// Unit and milliseconds, the longest first.
const TIMES: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Unit and bytes, the largest first.
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Reads a duration: whole numbers with a unit (`ms`, `s`, `m`, `h`, `d`), one or more (`"1h30m"`); or one with a
/// fraction (`"1.5s"`). To the millisecond.
pub fn duration(text: &str) -> Result<Duration, Fault> {
    let wrong = || {
        let fault = Fault::new(format!(
            "expected a duration such as \"250ms\", \"8s\" or \"1h\", found {text:?}"
        ));
        match text.parse::<u64>() {
            Ok(_) => fault.hint(format!("add a unit: \"{text}s\" or \"{text}ms\"")),
            Err(_) => fault,
        }
    };
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit, after) = quantity(rest).ok_or_else(wrong)?;
        let (_, scale) = TIMES.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        total = scaled(number, scale).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(total)) }
}

/// Writes a duration so that [`duration`] reads the same, in the largest unit that divides it.
pub fn duration_text(duration: Duration) -> String {
    written(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIMES, "0s")
}

/// Reads a size: a whole number with a unit (`B`, `KiB`, `MiB`, `GiB`).
pub fn size(text: &str) -> Result<usize, Fault> {
    let wrong = || {
        let fault =
            Fault::new(format!("expected a size such as \"16KiB\" or \"2MiB\", found {text:?}"));
        let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let letter = text.strip_prefix(number).and_then(|unit| unit.chars().next()).unwrap_or('k');
        let near = SIZES.iter().find(|(unit, _)| unit.starts_with(letter.to_ascii_uppercase()));
        match (number.trim().parse::<u64>(), near) {
            (Ok(number), Some((unit, _))) => {
                fault.hint(format!("the units are B, KiB, MiB and GiB: \"{number}{unit}\""))
            }
            _ => fault,
        }
    };
    let (number, unit, after) = quantity(text).ok_or_else(wrong)?;
    let (_, scale) = SIZES.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let bytes = scaled(number, scale).filter(|_| after.is_empty()).ok_or_else(wrong)?;
    usize::try_from(bytes).map_err(|_| wrong())
}

/// Writes a size so that [`size`] reads the same, in the largest unit that divides it.
pub fn size_text(bytes: usize) -> String {
    written(u64::try_from(bytes).unwrap_or(u64::MAX), &SIZES, "0B")
}

/// A number, the letters after it, and what is left.
fn quantity(text: &str) -> Option<(&str, &str, &str)> {
    let (number, rest) =
        text.split_at_checked(text.find(|c: char| !c.is_ascii_digit() && c != '.')?)?;
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at_checked(end)?;
    Some((number, unit, after))
}

/// `number * scale`, exactly; a fraction of at most three digits that leaves nothing over.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let thousandths: u64 = match fraction.len() {
        1..=3 => format!("{fraction:0<3}").parse().ok()?,
        _ => return None,
    };
    let part = thousandths.checked_mul(scale)?;
    let whole: u64 = whole.parse().ok()?;
    (part % 1000 == 0).then(|| whole.checked_mul(scale)?.checked_add(part / 1000))?
}

fn written(amount: u64, units: &[(&str, u64)], zero: &str) -> String {
    let largest = units.iter().find(|(_, scale)| amount > 0 && amount.is_multiple_of(*scale));
    largest.map_or_else(|| zero.to_owned(), |(unit, scale)| format!("{}{unit}", amount / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, milliseconds, back) in [
            ("250ms", 250, "250ms"),
            ("8s", 8_000, "8s"),
            ("1.5s", 1_500, "1500ms"),
            ("1h", 3_600_000, "1h"),
            ("1h30m", 5_400_000, "90m"),
            ("120s", 120_000, "2m"),
            ("24h", 86_400_000, "1d"),
            ("0s", 0, "0s"),
        ] {
            let read = duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(milliseconds), "{text}");
            assert_eq!(duration_text(read), back);
            assert_eq!(duration(back).unwrap(), read);
        }
        for text in [
            "",
            "8",
            "s",
            "8 s",
            "-1s",
            "1.2345s",
            "1.5ms",
            "8S",
            "1y",
            "1e3s",
            ".5s",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes, back) in
            [("16KiB", 16_384, "16KiB"), ("2MiB", 2 << 20, "2MiB"), ("0.5KiB", 512, "512B")]
        {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
            assert_eq!(size_text(bytes), back);
        }
        for text in ["", "16", "16KB", "16kib", "1KiB1B", "-1B", "16 KiB", "99999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
