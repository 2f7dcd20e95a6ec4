# dlpack.h: from the build requirement apache-tvm-ffi; where that is missing (an offline machine), from an installed torch.
if(NOT NOS_DLPACK_DIR)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import importlib.util, pathlib
for package, folder in (('tvm_ffi', 'include/dlpack'), ('torch', 'include/ATen')):
    spec = importlib.util.find_spec(package)
    if spec and spec.origin:
        header = pathlib.Path(spec.origin).parent / folder / 'dlpack.h'
        if header.exists():
            print(header.parent, end='')
            break
"
    OUTPUT_VARIABLE NOS_DLPACK_FOUND)
  set(NOS_DLPACK_DIR "${NOS_DLPACK_FOUND}" CACHE PATH "folder that holds dlpack.h" FORCE)
endif()
if(NOT EXISTS "${NOS_DLPACK_DIR}/dlpack.h")
  message(FATAL_ERROR "dlpack.h was not found; install apache-tvm-ffi or pass -DNOS_DLPACK_DIR=<folder of dlpack.h>")
endif()
add_library(nos_dlpack INTERFACE)
target_include_directories(nos_dlpack SYSTEM INTERFACE "${NOS_DLPACK_DIR}")
