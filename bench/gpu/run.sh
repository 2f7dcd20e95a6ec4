#!/bin/bash
# Builds, tests and benches the CUDA back-end on this machine, offline, in at most nine minutes:
#
#   bash bench/gpu/run.sh           needs a GPU, nvcc, CMake >= 3.22, a C++20 compiler and a Python with torch, NumPy,
#                                   pybind11 and pytest; ncu and compute-sanitizer are used where they are
#   bash bench/gpu/run.sh --host    what runs without a GPU: build, host-run kernel tests, gates, NVRTC's figures, and a
#                                   dry run of the benches on tiny CPU tensors
#
# Results go to $OUT (build/gpu): results.json, report.md, nvrtc.json, ncu.csv, and a log per stage. A stage that fails or
# runs out of its time leaves the others alone; the exit status says whether all went well. PYTHON names the interpreter.
cd "$(dirname "$0")/../.." || exit 2
case "${1:-}" in
  "") host= ;;
  --host) host=1 ;;
  *) sed -n '2,10s/^# \{0,1\}//p' bench/gpu/run.sh >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "run.sh takes one argument: --host" >&2; exit 2; }
root=$PWD
OUT=${OUT:-build/gpu}
mkdir -p "$OUT" && OUT=$(cd "$OUT" && pwd) || exit 2
if [ -z "${PYTHON:-}" ]; then PYTHON=python3; [ -x .venv/bin/python ] && PYTHON=$root/.venv/bin/python; fi
export PYTHONPATH=$root:$root/python NOS_JIT_CACHE=$OUT/jit TORCHINDUCTOR_CACHE_DIR=$OUT/inductor
rm -rf "$OUT"/{results.json,report.md,nvrtc.json,ncu.csv,jit,inductor,*.log}

begin=$(date +%s)
failed=()
# stage NAME SECONDS COMMAND...: runs it under its time limit, shows the end of its log
stage() {
  local name=$1 limit=$2 from=$(date +%s) rc
  shift 2
  echo "== $name (at $((from - begin)) s, limit $limit s)"
  timeout -k 5 "$limit" "$@" >"$OUT/$name.log" 2>&1
  rc=$?
  tail -n "${SHOW:-12}" "$OUT/$name.log"
  [ $rc -eq 124 ] && echo "   out of time"
  [ $rc -eq 0 ] || failed+=("$name")
  echo "   $name: exit $rc after $(($(date +%s) - from)) s"
  return $rc
}
have() { command -v "$1" >/dev/null; }

build() {
  local tree=$OUT/tree arguments=()
  have ninja && arguments+=(-G Ninja)
  if [ -z "$host" ]; then
    local arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
    arguments+=(-DNOS_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$arch-real")
  fi
  cmake -S . -B "$tree" "${arguments[@]}" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$PYTHON" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build "$tree" --parallel && cmake --install "$tree" --prefix "$root" && "$PYTHON" -m nos_ext.info
}
PATH=$(dirname "$PYTHON"):$PATH
tests() { "$PYTHON" -m pytest -q -p no:cacheprovider "$@"; }
profile() {
  local metrics=gpu__time_duration.sum,smsp__inst_executed.sum,smsp__issue_active.avg.pct_of_peak_sustained_active
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,dram__bytes_read.sum,dram__bytes_write.sum
  metrics+=,dram__throughput.avg.pct_of_peak_sustained_elapsed,launch__registers_per_thread
  metrics+=,smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_branch_resolve_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_no_instruction_per_issue_active.ratio
  metrics+=,smsp__sass_inst_executed_op_local.sum
  ncu --clock-control none --csv -k 'regex:interpreter|nos_rule' --metrics "$metrics" "$PYTHON" -m bench.gpu.run profile \
    --out "$OUT" >"$OUT/ncu.csv" && grep -c gpu__time_duration "$OUT/ncu.csv"
}
export -f build tests profile have
export OUT PYTHON root host PATH

if [ -n "$host" ]; then
  stage build 900 bash -c build || exit 1
  stage tests 400 bash -c 'tests tests/backend/cuda -m "not slow"'
  stage nvrtc 120 "$PYTHON" -m bench.gpu.nvrtc --json "$OUT/nvrtc.json"
  stage main 60 "$PYTHON" -m bench.gpu.run main --out "$OUT" --seconds 60 --device cpu
  stage profile 60 "$PYTHON" -m bench.gpu.run profile --out "$OUT" --device cpu
else
  nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv
  stage build 110 bash -c build || exit 1
  stage check 25 "$PYTHON" -m bench.gpu.check
  stage tests 90 bash -c 'tests tests/backend/cuda/test_device*.py tests/backend/cuda -m "not slow"'
  stage children 25 bash -c 'tests tests/search/test_child_stack.py -k gpu'
  have compute-sanitizer && stage sanitizer 30 compute-sanitizer --error-exitcode 9 "$PYTHON" -m bench.gpu.check
  stage nvrtc 25 "$PYTHON" -m bench.gpu.nvrtc --json "$OUT/nvrtc.json"
  stage main 135 "$PYTHON" -m bench.gpu.run main --out "$OUT" --seconds 125
  stage compile 50 "$PYTHON" -m bench.gpu.run compile --out "$OUT" --seconds 40
  have ncu && stage profile 25 bash -c profile
fi
SHOW=200 stage report 10 bash -c '"$PYTHON" -m bench.gpu.page "$OUT" | tee "$OUT/report.md"; exit "${PIPESTATUS[0]}"'
echo "== $(($(date +%s) - begin)) s; results in $OUT; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
