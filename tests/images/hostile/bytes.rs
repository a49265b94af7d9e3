//! What is wrong with the bytes as a whole: ends, packings, sizes.

use super::*;

fn archive() -> Vec<u8> {
    file("f").tar()
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    Packing::Gzip.pack(tar)
}

fn zstd(tar: &[u8]) -> Vec<u8> {
    Packing::Zstd.pack(tar)
}

fn cut(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes[..length].to_vec()
}

hostile_bytes! {
    // The end of an archive.
    end_missing: Tree(&["f"]), |_| cut(&archive(), 1024);
    end_of_one_block: Tree(&["f"]), |_| cut(&archive(), 1536);
    end_in_the_middle: No("single zero block"), |_| {
        [&archive()[..1536], &file("g").tar()[..]].concat()
    };
    end_then_data: Tree(&["f"]), |_| [&archive()[..], b"more"].concat();
    end_then_a_second_archive: Tree(&["f"]), |_| [archive(), file("g").tar()].concat();
    empty_blob: Tree(&[]), |_| Vec::new();
    only_an_end: Tree(&[]), |_| vec![0; 1024];
    one_zero_byte: No("middle of an entry"), |_| vec![0];
    cut_in_a_header: No("middle of an entry"), |_| cut(&archive(), 300);
    cut_in_data: No("middle of an entry"), |_| cut(&new().file("f", [b'x'; 2000]).tar(), 1000);
    cut_in_a_sparse_extension: No("middle of an entry"), |_| {
        Head::gnu(b'S', "f").field(482, b"\x01").block().to_vec()
    };
    cut_before_padding: Tree(&["f"]), |_| cut(&archive(), 513);
    cut_in_padding: Tree(&["f"]), |_| cut(&archive(), 600);
    cut_at_the_last_byte_of_data: No("middle of an entry"), |_| cut(&new().file("f", "two").tar(), 514);
    cut_in_padding_of_a_name: No("describes no entry"), |_| cut(&new().long(b'L', "name").tar(), 600);
    cut_in_padding_of_a_sparse_map: No("sparse map"), |_| {
        let records: [(&str, &[u8]); 4] = [
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"f"),
            ("GNU.sparse.realsize", b"5"),
        ];
        let layer = new().pax(&records).file("f", "1\n0\n5\n").tar();
        let data = layer.len() - 1024 - 512;
        cut(&layer, data + 6)
    };
    cut_in_an_extension: No("middle of an entry"), |_| cut(&new().long(b'L', "name").tar(), 515);
    checksum_wrong: No("checksum"), |_| {
        let mut archive = archive();
        archive[0] ^= 1;
        archive
    };
    checksum_of_signed_bytes: Line("\u{e9}", "file 1 "), |_| {
        let mut block = Head::new(b'0', "\u{e9}").size(1).block();
        block[148..156].fill(b' ');
        let sum: i64 = block.iter().map(|byte| i64::from(byte.cast_signed())).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        new().raw(&block).raw(b"x").raw(&[0; 511]).tar()
    };
    text: No("number"), |_| b"<html>not found</html>".repeat(100);
    ones: No("number"), |_| vec![0xff; 2048];

    // Packing.
    gzip_plain: Tree(&["f"]), |_| gzip(&archive());
    gzip_in_two_members: Tree(&["f"]), |_| {
        let archive = archive();
        [gzip(&archive[..700]), gzip(&archive[700..])].concat()
    };
    gzip_then_garbage: No("cannot be read"), |_| [gzip(&archive()), b"garbage".to_vec()].concat();
    gzip_cut: No("cannot be read"), |_| {
        let packed = gzip(&new().file("f", (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).tar());
        cut(&packed, packed.len() / 2)
    };
    gzip_without_trailer: No("cannot be read"), |_| {
        let packed = gzip(&archive());
        cut(&packed, packed.len() - 8)
    };
    gzip_with_wrong_checksum: No("cannot be read"), |_| {
        let mut packed = gzip(&archive());
        let at = packed.len() - 8;
        packed[at] ^= 1;
        packed
    };
    gzip_with_wrong_length: No("cannot be read"), |_| {
        let mut packed = gzip(&archive());
        let at = packed.len() - 4;
        packed[at] ^= 1;
        packed
    };
    gzip_of_gzip: No("middle of an entry"), |_| gzip(&gzip(&new().file("f", b"incompressible".repeat(99)).tar()));
    gzip_header_only: No("cannot be read"), |_| vec![0x1f, 0x8b];
    gzip_with_an_endless_name: No("cannot be read"), |_| {
        let mut bytes = vec![0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3];
        bytes.extend(std::iter::repeat_n(b'n', 100_000));
        bytes
    };
    gzip_bomb: No("more than"), |_| gzip(&new().file("f", vec![0; 50 << 20]).tar());
    zstd_plain: Tree(&["f"]), |_| zstd(&archive());
    zstd_in_two_frames: Tree(&["f"]), |_| {
        let archive = archive();
        [zstd(&archive[..700]), zstd(&archive[700..])].concat()
    };
    zstd_with_skippable_frames: Tree(&["f"]), |_| {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"skip"].concat();
        [&skippable[..], &zstd(&archive()), &skippable].concat()
    };
    zstd_then_garbage: No("cannot be read"), |_| [zstd(&archive()), b"garbage".to_vec()].concat();
    zstd_cut: No("cannot be read"), |_| {
        let packed = zstd(&archive());
        cut(&packed, packed.len() - 3)
    };
    zstd_damaged: No("cannot be read"), |_| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        std::io::Write::write_all(&mut encoder, &archive()).unwrap();
        let mut packed = encoder.finish().unwrap();
        let at = packed.len() - 2;
        packed[at] ^= 1;
        packed
    };
    zstd_with_an_oversized_window: No("cannot be read"), |_| {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        std::io::Write::write_all(&mut encoder, &new().file("f", vec![7; 9 << 20]).tar()).unwrap();
        encoder.finish().unwrap()
    };
    zstd_bomb: No("more than"), |_| zstd(&new().file("f", vec![0; 50 << 20]).tar());
    xz_is_not_spoken: No("number"), |_| {
        [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[1; 600][..]].concat()
    };

    // More than the budget.
    bytes_beyond_the_budget: No("unpacks to more than 67108864 bytes"), |_| {
        (0..66).fold(new(), |layer, n| layer.file(&format!("f{n}"), vec![n; 1 << 20])).tar()
    };
    entries_beyond_the_budget: No("more than 5000 entries"), |_| {
        (0..5001).fold(new(), |layer, n| layer.symlink(&format!("{n}"), "x")).tar()
    };
    directories_nobody_described: No("without an entry"), |_| {
        (0..200).fold(new(), |layer, n| layer.file(&format!("d{n}/f"), "")).tar()
    };
    one_name_ten_thousand_times: No("more than 5000 entries"), |_| {
        (0..10_000).fold(new(), |layer, _| layer.file("f", "")).tar()
    };
    directories_taken_away_again_and_again: Tree(&["f"]), |_| {
        (0..500).fold(new(), |layer, n| layer.dir("f/", 0o755).file(&format!("f/{n}/x"), "").file("f", "")).tar()
    };
    deep_through_links: Tree(&["x"]), |_| {
        // Each round goes a hundred directories deeper through the link, further than a path can say, and then
        // all of it is replaced by one file.
        let step = "d/".repeat(40);
        let mut layer = new().dir("x/", 0o755).dir(&format!("x/{step}"), 0o755);
        for round in 0..2 {
            layer = layer.dir(&format!("x/{step}{}", "e/".repeat(round + 1)), 0o755);
        }
        layer.file("x", "").tar()
    };
}
