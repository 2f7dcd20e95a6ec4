# cmake -DNOS_FILE=<file> -P print_size.cmake
file(SIZE "${NOS_FILE}" bytes)
math(EXPR tenths "${bytes} * 10 / 1000000")
math(EXPR whole "${tenths} / 10")
math(EXPR part "${tenths} % 10")
message("nos_ext: ${NOS_FILE} is ${whole}.${part} MB")
