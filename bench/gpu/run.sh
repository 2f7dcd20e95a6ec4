#!/bin/bash
# Builds, tests and benches the CUDA back-end on this machine, offline:
#
#   bash bench/gpu/run.sh [--host] [STAGE ...]   without a stage: all of them, in this order
#
#   build check tests children sanitizer probe   is it right?   about five minutes with a module that is built already
#   nvrtc main reductions profile compile         is it fast?    about six minutes
#
# --host: a dry run of the same stages without a GPU, on tiny CPU tensors, with the kernels run by the host.
#
# Needs a Python (PYTHON names another than .venv's or python3) with torch, NumPy and pytest; ncu and compute-sanitizer
# where they are. nos_ext/ may hold a module that another machine has built for this Python and GPU, `make gpu-module` there;
# one of other sources is refused, and the stage build needs pybind11 >= 3, nvcc, CMake >= 3.22 and a C++20 compiler then.
# Results go to $OUT (build/gpu/out): results.json, report.md, nvrtc.json, probe.txt, ncu.csv and logs.tgz. Everything else
# stays in build/gpu. A stage that fails or runs out of time leaves the others alone; the exit status says if all went well.
cd "$(dirname "$0")/../.." || exit 2
root=$PWD
stages="build check tests children sanitizer probe nvrtc main reductions profile compile"
host='' wanted=()
for argument in "$@"; do
  case " --host $stages " in
    *" $argument "*) if [ "$argument" = --host ]; then host=1; else wanted+=("$argument"); fi ;;
    *)
      echo "run.sh: '$argument' is neither --host nor a stage" >&2
      sed -n '2,/^cd /s/^# \{0,1\}//p' bench/gpu/run.sh >&2
      exit 2
      ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || read -ra wanted <<<"$stages"

work=$root/build/gpu
OUT=${OUT:-$work/out}
mkdir -p "$OUT" "$work/logs" && OUT=$(cd "$OUT" && pwd) || exit 2
rm -f "$work"/logs/*.log
if [ -z "${PYTHON:-}" ]; then PYTHON=python3; [ -x .venv/bin/python ] && PYTHON=$root/.venv/bin/python; fi
PYTHON=$("$PYTHON" -c 'import sys; print(sys.executable)') || exit 2 # a whole path: CMake takes another for a relative one
PATH=$(dirname "$PYTHON"):$PATH
device=cpu architecture=''
if [ -z "$host" ]; then
  device=cuda
  architecture=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  [ -n "$architecture" ] || { echo "run.sh: nvidia-smi finds no GPU here; --host makes a dry run" >&2; exit 1; }
fi
export PYTHONPATH=$root:$root/python NOS_JIT_CACHE=$work/jit TORCHINDUCTOR_CACHE_DIR=$work/inductor PYTHONUNBUFFERED=1
export OUT PYTHON PATH root host work device architecture

begin=$(date +%s)
failed=()
# stage NAME SECONDS COMMAND...: if it is wanted, runs it within its time and shows the end of its log. Out of time it gets
# the interrupt of a terminal, so that pytest still says what has failed so far.
stage() {
  local name=$1 limit=$2 from=$(date +%s) rc
  shift 2
  [ -z "$host" ] || limit=$((3 * limit)) # the machine may be busy
  case " ${wanted[*]} report " in *" $name "*) ;; *) return 0 ;; esac
  echo "== $name (at $((from - begin)) s, limit $limit s)"
  timeout -s INT -k 10 "$limit" "$@" >"$work/logs/$name.log" 2>&1
  rc=$?
  tail -n "${SHOW:-12}" "$work/logs/$name.log"
  [ $rc -eq 124 ] && echo "   out of time"
  [ $rc -eq 0 ] || failed+=("$name")
  echo "   $name: exit $rc after $(($(date +%s) - from)) s"
  tar -C "$work" -czf "$OUT/logs.tgz" logs
  return $rc
}
have() { command -v "$1" >/dev/null; }

# Whether the module in place is of these sources, loads, and has code for the GPU; says so, or why not.
fits() {
  "$PYTHON" cmake/sources.py --check && "$PYTHON" -c "
import sys, nos_ext
info, wanted = nos_ext.build_info()['cuda'], sys.argv[1]
has = info['architectures'].split()
if wanted and not {wanted, f'{wanted}-real'} & set(has):
    sys.exit(f'it has no code for sm_{wanted}; it has: {has or info[\"status\"]}')" "$architecture"
}
build() {
  local arguments=()
  if fits; then "$PYTHON" -m nos_ext.info; return; fi
  [ -n "$host" ] || arguments+=(-DNOS_CUDA=ON "-DCMAKE_CUDA_ARCHITECTURES=$architecture-real")
  have ninja && arguments+=(-G Ninja)
  cmake -S . -B "$work/tree" "${arguments[@]}" -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE="$PYTHON" \
    -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" &&
    cmake --build "$work/tree" --parallel && cmake --install "$work/tree" --prefix "$root" && "$PYTHON" -m nos_ext.info
}

run_tests() { "$PYTHON" -m pytest -q -p no:cacheprovider --tb=short --maxfail=12 --durations=8 "$@"; }
# On a GPU in processes of their own: a fault of the device spoils the rest of the process that it happens in.
tests() {
  local here=tests/backend/cuda rc=0 bits=tests/backend/test_conformance.py
  local apart='out_of_memory or fault_of_the_device or more_elements'
  if [ -n "$host" ]; then run_tests $here $bits -m "not slow"; return; fi
  run_tests $bits -k "CUDA and (interpreted or compiled)" || rc=1
  run_tests $here/test_device.py -k "not ($apart)" || rc=1
  run_tests $here/test_device_jit.py || rc=1
  run_tests $here/test_device.py -k "$apart" || rc=1
  return $rc
}

# Questions in processes of their own, with limits of their own; the two of the sanitizer are a stage.
sanitizer() { "$PYTHON" -m bench.gpu.probe memcheck racecheck --device "$device"; }
probe() {
  set -o pipefail
  "$PYTHON" -m bench.gpu.probe --but memcheck --but racecheck --device "$device" | tee "$OUT/probe.txt"
}

profile() {
  local suite=("$PYTHON" -m bench.gpu.run profile --out "$OUT" --device "$device")
  if [ -n "$host" ]; then "${suite[@]}"; return; fi
  local metrics=gpu__time_duration.sum,smsp__inst_executed.sum,smsp__issue_active.avg.pct_of_peak_sustained_active
  metrics+=,sm__warps_active.avg.pct_of_peak_sustained_active,dram__bytes_read.sum,dram__bytes_write.sum
  metrics+=,dram__throughput.avg.pct_of_peak_sustained_elapsed,launch__registers_per_thread
  metrics+=,smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_branch_resolve_per_issue_active.ratio
  metrics+=,smsp__average_warps_issue_stalled_no_instruction_per_issue_active.ratio
  metrics+=,smsp__sass_inst_executed_op_local.sum
  ncu --clock-control none --csv -k 'regex:interpreter|nos_rule' --metrics "$metrics" "${suite[@]}" >"$OUT/ncu.csv" &&
    grep -c gpu__time_duration "$OUT/ncu.csv"
}

report() { "$PYTHON" -m bench.gpu.page "$OUT" >"$OUT/report.md"; local rc=$?; cat "$OUT/report.md"; return $rc; }
export -f fits build run_tests tests sanitizer probe profile report have

[ -n "$host" ] || nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv
stage build $([ -n "$host" ] && echo 300 || echo 110) bash -c build || exit 1
case " ${wanted[*]} " in *" build "*) ;; *)
  fits || [ -n "$host" ] || { echo "run.sh: run the stage build first" >&2; exit 1; } ;;
esac
stage check 60 "$PYTHON" -m bench.gpu.check --device "$device"
stage tests 120 bash -c tests
stage children 60 bash -c 'run_tests tests/search/test_child_stack.py -k gpu'
stage sanitizer 155 bash -c sanitizer
SHOW=80 stage probe 150 bash -c probe
stage nvrtc 60 "$PYTHON" -m bench.gpu.nvrtc --json "$OUT/nvrtc.json"
stage main 135 "$PYTHON" -m bench.gpu.run main --out "$OUT" --seconds 120 --device "$device"
stage reductions 40 "$PYTHON" -m bench.gpu.run reductions --out "$OUT" --seconds 30 --device "$device"
if [ -n "$host" ] || have ncu; then stage profile 60 bash -c profile; fi
stage compile 60 "$PYTHON" -m bench.gpu.run compile --out "$OUT" --seconds 40 --device "$device"
if [ -f "$OUT/results.json" ]; then SHOW=200 stage report 20 bash -c report; fi
echo "== $(($(date +%s) - begin)) s; results in $OUT; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
