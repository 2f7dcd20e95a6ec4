"""The benches on a GPU: `bash bench/gpu/run.sh` runs all of them; `--host` what needs no GPU."""
