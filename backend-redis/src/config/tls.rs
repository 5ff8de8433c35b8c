//! TLS to the server: certificates, what a build without it refuses, and what is done before a connection.

use delayline_backend_kit::options::bad;
use delayline_backend_kit::{ExposedPassword, tls};
use delayline_core::Result;
use redis::{Client, ConnectionAddr, ConnectionInfo};

/// Certificates (PEM): roots in the place of the system's, and our own with its key.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    pub(super) roots: Option<Vec<u8>>,
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

/// Refuses `rediss://` in a build without TLS, before the driver reads the URL: it would call it malformed.
///
/// # Errors
/// [`Config`](delayline_core::ErrorKind::Config), with the features.
pub(super) fn check_scheme(url: &str) -> Result<()> {
    let built = cfg!(any(feature = "tls-ring", feature = "tls-aws-lc-rs"));
    let wanted = url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("rediss"));
    if wanted && !built { Err(tls::not_built("`rediss://`")) } else { Ok(()) }
}

impl Certificates {
    /// Checks that they can be read and are used.
    ///
    /// # Errors
    /// [`Config`](delayline_core::ErrorKind::Config).
    pub(super) fn check(&self, info: &ConnectionInfo) -> Result<()> {
        if !self.is_empty() && !is_used(info) {
            return Err(bad("certificates need a `rediss://` URL"));
        }
        if self.roots.as_ref().is_some_and(|pem| !String::from_utf8_lossy(pem).contains("-----BEGIN CERTIFICATE-----"))
        {
            return Err(bad("`tls_roots` holds no certificate (PEM)"));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.roots.is_none() && self.client.is_none()
    }

    /// What makes connections to a server with these.
    pub(super) fn client(&self, info: ConnectionInfo) -> Result<Client> {
        #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
        if !self.is_empty() {
            let client_tls = self.client.clone();
            let client_tls =
                client_tls.map(|(client_cert, client_key)| redis::ClientTlsConfig { client_cert, client_key });
            let these = redis::TlsCertificates { client_tls, root_cert: self.roots.clone() };
            // What it says is of the certificates' form, and shows none of them.
            return Client::build_with_tls(info, these).map_err(|e| bad(format!("a certificate is malformed: {e}")));
        }
        Client::open(info).map_err(|_| bad("this Redis address can't be used"))
    }
}

/// Whether connections are over TLS.
pub(super) fn is_used(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

/// Call before each connection: installs rustls's provider for TLS, and warns of a password that is sent without.
pub(super) fn prepare(info: &ConnectionInfo) {
    if is_used(info) {
        return tls::install_provider();
    }
    let password = info.redis_settings().password();
    if let ConnectionAddr::Tcp(host, _) = info.addr()
        && password.is_some_and(|password| !password.is_empty())
    {
        let server = &info.addr().to_string();
        ExposedPassword { host, server, how: "unencrypted", instead: "`rediss://`" }.warn();
    }
}

#[cfg(test)]
mod tests {
    use delayline_core::ErrorKind;

    use crate::RedisConfig;

    #[test]
    fn certificates_need_a_url_with_tls() {
        for config in ["redis://host", "REDIS://host"].map(|url| RedisConfig::from_url(url).unwrap()) {
            for config in [config.clone().tls_roots("-----BEGIN CERTIFICATE-----"), config.tls_client("PEM", "PEM")] {
                let e = config.check().unwrap_err();
                assert!(e.kind() == ErrorKind::Config && e.message().contains("rediss://"), "{e}");
            }
        }
    }

    #[cfg(any(feature = "tls-ring", feature = "tls-aws-lc-rs"))]
    #[test]
    fn certificates_are_read() {
        let config = RedisConfig::from_url("REDISS://host").unwrap();
        config.check().unwrap();
        config.clone().tls_roots("-----BEGIN CERTIFICATE-----").check().unwrap();
        assert!(config.clone().tls_roots("PEM").check().unwrap_err().message().contains("holds no certificate"));
        let e = config.tls_client("PEM", "PEM").client(redis::ProtocolVersion::RESP3).unwrap_err();
        assert!(e.kind() == ErrorKind::Config && e.message().contains("a certificate is malformed"), "{e}");
    }

    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    #[test]
    fn clear_3_a_build_without_tls_names_its_features() {
        for url in ["rediss://:hunter2@host", "REDISS://host:port"] {
            let e = RedisConfig::from_url(url).unwrap_err();
            assert!(e.kind() == ErrorKind::Config && e.message().contains("`tls-ring`"), "{e}");
            assert!(!format!("{e} {e:?}").contains("hunter2"), "{e:?}");
        }
    }
}
