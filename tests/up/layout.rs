//! Images for pods: layouts made by umoci, registries run by Debian's docker-registry.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::node::sh;

/// What busybox is called by in the image.
const APPLETS: [&str; 14] = [
    "sh", "ls", "wc", "head", "cut", "cat", "env", "httpd", "wget", "sleep", "echo", "id", "true", "mkdir",
];

/// An OCI layout `<place>/<name>` with busybox as its image `latest`.
pub fn busybox(place: &Path, name: &str, configuration: &[&str]) {
    let bin = place.join(format!("{name}-bin"));
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", bin.join(applet)).unwrap();
    }
    // A directory that ends with a link: umoci leaves out the padding of a file at the end of its archives.
    symlink("busybox", bin.join("zz")).unwrap();
    let configuration: Vec<String> = configuration.iter().map(|flag| format!("'{flag}'")).collect();
    sh(&format!(
        "cd {}; umoci init --layout {name}; umoci new --image {name}:latest
         umoci insert --image {name}:latest {name}-bin /bin
         umoci config --image {name}:latest {}; rm -r {name}-bin; chmod -R a+rX {name}",
        place.display(),
        configuration.join(" "),
    ));
}

/// A registry on loopback. It ends with the thread that started it.
pub struct Registry {
    child: Child,
    pub address: String,
}

impl Registry {
    pub fn start(place: &Path) -> Self {
        let config = place.join("registry.yml");
        let storage = place.join("registry");
        let text = format!(
            "version: 0.1\nlog: {{level: info, formatter: json}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
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
            if let Some((_, rest)) = line.split_once("listening on ") {
                let part = |c: &char| c.is_ascii_digit() || ".:".contains(*c);
                break rest.chars().take_while(part).collect();
            }
        };
        // Its log must go on being read, or it would stop when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Registry { child, address }
    }

    /// Puts the image of a layout under a name, `library/nginx:latest`.
    pub fn push(&self, layout: &Path, name: &str) {
        sh(&format!(
            "skopeo copy --quiet --insecure-policy --dest-tls-verify=false oci:{}:latest docker://{}/{name}",
            layout.display(),
            self.address
        ));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
