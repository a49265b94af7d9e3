//! Debian's docker-registry on a port of its own, for the length of a test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use super::build::TestImage;

pub struct DockerRegistry {
    child: Child,
    pub address: String,
    authorization: String,
    _directory: tempfile::TempDir,
}

impl DockerRegistry {
    pub fn start() -> DockerRegistry {
        DockerRegistry::start_with("")
    }

    /// With more configuration, in YAML.
    pub fn start_with(more: &str) -> DockerRegistry {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.yml");
        let storage = directory.path().join("storage");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n{more}\n",
            storage.display()
        );
        std::fs::write(&config, text).unwrap();
        // The registry dies with the thread of the test that started it.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is named in packaging/test-packages.txt");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "docker-registry ended");
            if let Some(at) = line.find("listening on 127.0.0.1:") {
                let rest = &line[at + "listening on ".len()..];
                break rest
                    .chars()
                    .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
                    .collect();
            }
        };
        // Its log must go on being read, or it would stop when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        DockerRegistry {
            child,
            address,
            authorization: String::new(),
            _directory: directory,
        }
    }

    pub fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for (digest, blob) in &image.blobs {
            self.push_blob(repository, digest, blob);
        }
        self.push_manifest(repository, tag, image.media_type, &image.manifest);
    }

    /// Pushes with an `Authorization` header.
    pub fn push_as(&mut self, authorization: &str, repository: &str, tag: &str, image: &TestImage) {
        self.authorization = format!("Authorization: {authorization}\r\n");
        self.push(repository, tag, image);
    }

    pub fn push_blob(&self, repository: &str, digest: &str, blob: &[u8]) {
        let (status, head) = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202, "{head}");
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap();
        let at = location.find("/v2/").unwrap();
        let target = format!("{}&digest={digest}", &location[at..]);
        let (status, head) = self.ask("PUT", &target, "Content-Type: application/octet-stream\r\n", blob);
        assert_eq!(status, 201, "{head}");
    }

    pub fn push_manifest(&self, repository: &str, key: &str, media_type: &str, manifest: &[u8]) {
        let target = format!("/v2/{repository}/manifests/{key}");
        let (status, head) = self.ask(
            "PUT",
            &target,
            &format!("Content-Type: {media_type}\r\n"),
            manifest,
        );
        assert_eq!(status, 201, "{head}");
    }

    fn ask(&self, method: &str, target: &str, headers: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{}{headers}Content-Length: {length}\r\n\r\n",
            self.address, self.authorization
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
