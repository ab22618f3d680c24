//! A secret: a key of the server API, or what tokens are signed with.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// A secret text, which formatting does not show. Secrets are compared in a time that depends on their lengths only.
#[derive(Clone, Default)]
pub struct Secret {
    text: Box<str>,
    file: Option<SecretFile>,
}

/// The file that a secret was read from.
#[derive(Clone, Debug)]
struct SecretFile {
    path: Box<str>,
    /// Whether every user of this host can read it.
    is_exposed: bool,
}

impl Secret {
    /// Reads a secret from a file, without the white space around it. One that is longer than `bytes_max` is cut off
    /// beyond that, where its check finds it too long. An error is the part of a sentence that follows the option.
    pub fn read(path: &str, bytes_max: usize) -> Result<Self, String> {
        let mut text = String::new();
        let mut read = || {
            let file = File::open(path)?;
            let mode = file.metadata()?.permissions().mode();
            // As many bytes as a secret has, a line end, and one more, which shows that it is too long.
            file.take(bytes_max as u64 + 3).read_to_string(&mut text)?;
            Ok(mode)
        };
        let mode = read()
            .map_err(|error: std::io::Error| format!("the file {path} cannot be read: {error}"))?;
        let file = SecretFile { path: path.into(), is_exposed: mode & 0o004 != 0 };
        Ok(Self { text: text.trim().into(), file: Some(file) })
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// The path of the file that it was read from.
    pub fn path(&self) -> Option<&str> {
        self.file.as_ref().map(|file| &*file.path)
    }

    /// A warning if every user of this host can read the file that it was read from. `name` is the option's.
    pub(super) fn warning(&self, name: &str) -> Option<String> {
        let file = self.file.as_ref().filter(|file| file.is_exposed)?;
        let path = &file.path;
        Some(format!("{name}: every user of this host can read {path}: set its mode to 600 or 640"))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text.as_bytes().ct_eq(other.text.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("***")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self { text: text.into(), file: None }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self { text: text.into(), file: None }
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn file(name: &str, text: &str, mode: u32) -> String {
        let path = std::env::temp_dir().join(format!("fantail-{name}-{}", std::process::id()));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn a_secret_is_compared_and_not_shown() {
        let secret = Secret::from("hunter2");
        assert_eq!(format!("{secret:?} {:#?}", Some(&secret)), "*** Some(\n    ***,\n)");
        assert_eq!(secret, Secret::from("hunter2".to_owned()));
        for other in ["", "hunter", "hunter3", "hunter22"] {
            assert_ne!(secret, other.into(), "{other}");
        }
        assert_eq!((secret.expose(), secret.path(), secret.warning("x")), ("hunter2", None, None));
    }

    #[test]
    fn a_secret_is_read_from_a_file_without_its_line_end() {
        let path = file("secret-read", "hunter2\r\n", 0o640);
        let secret = Secret::read(&path, 7).unwrap();
        assert_eq!((secret.expose(), secret.path()), ("hunter2", Some(&*path)));
        assert_eq!(secret.warning("api.key_file"), None);
        assert_eq!(secret, "hunter2".into(), "wherever it comes from");
        assert!(!format!("{secret:?}").contains("hunter2"));
        fs::write(&path, "x".repeat(100)).unwrap();
        assert!(Secret::read(&path, 7).unwrap().expose().len() > 7, "its check finds it too long");
        fs::write(&path, [0xff]).unwrap();
        assert!(Secret::read(&path, 7).unwrap_err().contains(&path), "it is not UTF-8");
        fs::remove_file(&path).unwrap();
        let fault = Secret::read(&path, 7).unwrap_err();
        assert!(fault.contains(&format!("the file {path} cannot be read")), "{fault}");
    }

    #[test]
    fn a_file_that_every_user_can_read_causes_a_warning() {
        for (mode, is_exposed) in [(0o600, false), (0o640, false), (0o604, true), (0o644, true)] {
            let path = file(&format!("secret-{mode:o}"), "hunter2", mode);
            let warning = Secret::read(&path, 7).unwrap().warning("api.key_file");
            fs::remove_file(&path).unwrap();
            let expected = format!(
                "api.key_file: every user of this host can read {path}: set its mode to 600 or 640"
            );
            assert_eq!(warning, is_exposed.then_some(expected), "{mode:o}");
        }
    }
}
