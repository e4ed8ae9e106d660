//! The file that `docker run --env-file` reads. Its grammar has no quoting: a line is KEY=VALUE, and what it cannot carry as
//! it is must stay out, as Docker rejects the whole file or reads another value.

use tunnel::facts::Variable;

/// Longest line, in bytes, its end included: the buffer of Docker's line reader.
const LINE_MAX: usize = 64 << 10;

/// The text of the file.
pub(super) fn render(variables: &[Variable]) -> Vec<u8> {
    let mut text = vec![];
    for Variable { key, value } in variables {
        if unfit(&key.0, &value.0).is_none() {
            text.extend_from_slice(&key.0);
            text.push(b'=');
            text.extend_from_slice(&value.0);
            text.push(b'\n');
        }
    }
    text
}

/// Why Docker's file cannot carry a variable; `None` if it can.
pub(super) fn unfit(key: &[u8], value: &[u8]) -> Option<&'static str> {
    let (Ok(key), Ok(value)) = (std::str::from_utf8(key), std::str::from_utf8(value)) else {
        return Some("it is not UTF-8");
    };
    if key.is_empty() {
        Some("its key is empty")
    } else if key.starts_with('#') {
        Some("its key starts with #, as a comment does")
    } else if key.starts_with('\u{feff}') {
        Some("its key starts with a byte order mark")
    } else if key.contains(char::is_whitespace) {
        Some("its key contains white space")
    } else if value.contains('\n') {
        Some("its value has several lines")
    } else if value.ends_with('\r') {
        Some("its value ends with a carriage return")
    } else if key.len() + value.len() + "=\n".len() > LINE_MAX {
        Some("it is longer than 64 KiB")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tunnel::facts::Blob;

    /// What Docker reads, by its own rules.
    fn docker(file: &[u8]) -> Result<Vec<(String, String)>, String> {
        let mut variables = vec![];
        for (n, line) in file.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.len() > LINE_MAX {
                return Err(format!("line {n} is too long"));
            }
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|e| e.to_string())?;
            let line = if n == 0 {
                line.trim_start_matches('\u{feff}')
            } else {
                line
            };
            let line = line.trim_start();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once('=').ok_or("taken from the shell")?;
            if key.is_empty() || key.contains([' ', '\t']) {
                return Err(format!("bad key on line {n}"));
            }
            variables.push((key.to_owned(), value.to_owned()));
        }
        Ok(variables)
    }

    fn variable(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Variable {
        Variable {
            key: Blob(key.into()),
            value: Blob(value.into()),
        }
    }

    #[test]
    fn docker_reads_the_same_values() {
        let longest = "x".repeat(LINE_MAX - "K=\n".len());
        let all = [
            ("A", "plain"),
            ("EMPTY", ""),
            ("QUOTES", "\"double\" 'single' `back`"),
            ("SIGNS", "a=b=c # $HOME \\n %s !"),
            ("SPACES", "  both ends \t "),
            ("CR", "in\rside"),
            ("json.key-1", "{\"a\": [1, \"ü\u{2028}\"]}"),
            ("BOM", "\u{feff}"),
            ("a#b", "#"),
            ("ключ", "значение"),
            ("K", &longest),
        ];
        let variables = all.map(|(key, value)| variable(key, value));
        let read = docker(&render(&variables)).unwrap();
        assert_eq!(read.len(), all.len());
        for ((key, value), (read_key, read_value)) in all.iter().zip(&read) {
            assert_eq!((key, value), (&read_key.as_str(), &read_value.as_str()));
        }
    }

    #[test]
    fn what_docker_cannot_carry_stays_out_alone() {
        let too_long = vec![b'x'; LINE_MAX - 2];
        for odd in [
            variable("LINES", "a\nb"),
            variable("CR", "a\r"),
            variable("VALUE", b"\xff".to_vec()),
            variable(b"\xffKEY".to_vec(), "a"),
            variable("", "a"),
            variable("#KEY", "a"),
            variable("\u{feff}KEY", "a"),
            variable("A B", "a"),
            variable(" A", "a"),
            variable("\u{a0}A", "a"),
            variable("A\t", "a"),
            variable("A\nB", "a"),
            variable("K", too_long),
        ] {
            let key = odd.key.0.clone();
            let file = render(&[odd, variable("GOOD", "1")]);
            assert_eq!(file, b"GOOD=1\n", "{key:?}");
        }
    }
}
