# The Python that the module is built for, and pybind11: found, or an error that says what to do.
if(DEFINED Python_EXECUTABLE AND NOT IS_ABSOLUTE "${Python_EXECUTABLE}")  # CMake would take another one, silently
  message(FATAL_ERROR "Python_EXECUTABLE is '${Python_EXECUTABLE}', a relative path; pass the whole path")
endif()
find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)
set(NOS_PYBIND11_REMEDY "install 'pybind11>=3.0,<4' for ${Python_EXECUTABLE} and pass -Dpybind11_DIR=<what its python -m pybind11 --cmakedir prints>")
find_package(pybind11 CONFIG QUIET)
if(NOT pybind11_FOUND)
  message(FATAL_ERROR "pybind11 was not found; ${NOS_PYBIND11_REMEDY}")
elseif(pybind11_VERSION VERSION_LESS 3.0)
  message(FATAL_ERROR "pybind11 ${pybind11_VERSION} in ${pybind11_DIR} is too old, 3.0 is the first that compiles; ${NOS_PYBIND11_REMEDY}")
endif()
