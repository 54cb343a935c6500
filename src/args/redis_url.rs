//! Where Redis is, as `--redis` says it: checked when it is read, never shown with its password.

use std::fmt;

use redis::IntoConnectionInfo;

use super::UsageError;

/// Where Redis is. `Debug` and `Display` leave out the user and the password.
#[derive(Clone)]
pub struct RedisUrl {
    url: String,
    shown: String,
}

impl RedisUrl {
    /// Reads `redis://`, `rediss://` (with the feature `tls`), `unix://` and `redis+unix://`.
    ///
    /// # Errors
    ///
    /// Another scheme, or what the Redis library does not take; the message never shows the URL.
    pub fn parse(text: &str) -> Result<RedisUrl, UsageError> {
        let refuse = |why: String| UsageError::new(format!("{why}; give {ACCEPTED_REDIS_URLS}"));
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        match scheme {
            "redis" | "unix" | "redis+unix" => {}
            "rediss" if cfg!(feature = "tls") => {}
            "rediss" => return Err(refuse("this payrelay was built without TLS".into())),
            _ => return Err(refuse("not a Redis URL".into())),
        }
        // Certificates that nobody checks would make rediss:// a false promise.
        if text.contains('#') {
            return Err(refuse("a Redis URL takes no `#` (in a password write %23)".into()));
        }
        let info =
            text.into_connection_info().map_err(|error| refuse(format!("cannot read the Redis URL ({error})")))?;
        let db = info.redis_settings().db();
        let shown = match scheme {
            "redis" | "rediss" => format!("{scheme}://{}/{db}", info.addr()),
            _ => format!("{scheme}://{}?db={db}", info.addr()),
        };
        Ok(RedisUrl { url: text.to_owned(), shown })
    }

    /// The URL with user and password, to connect with and never to be shown.
    pub fn expose(&self) -> &str {
        &self.url
    }
}

#[cfg(feature = "tls")]
const ACCEPTED_REDIS_URLS: &str =
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss://… (TLS), unix:///PATH[?db=N] or redis+unix:///PATH";
#[cfg(not(feature = "tls"))]
const ACCEPTED_REDIS_URLS: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DB], unix:///PATH[?db=N] or redis+unix:///PATH";

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({})", self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_never_shows_user_or_password() {
        for (url, shown) in [
            ("redis://127.0.0.1", "redis://127.0.0.1:6379/0"),
            ("redis://joe:hunter2@r:1/3", "redis://r:1/3"),
            ("redis://:hunter2@r", "redis://r:6379/0"),
            ("unix:///run/r.sock", "unix:///run/r.sock?db=0"),
            ("redis+unix:///run/r.sock?user=joe&pass=hunter2&db=2", "redis+unix:///run/r.sock?db=2"),
        ] {
            let parsed = RedisUrl::parse(url).expect("a good URL");
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), format!("RedisUrl({shown})"));
            assert_eq!(parsed.expose(), url);
        }
        assert_eq!(RedisUrl::parse("rediss://:pw@r").is_ok(), cfg!(feature = "tls"));
    }
}
