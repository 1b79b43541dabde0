# Sets `compiler` to the nvcc of the newest CUDA toolkit in the Python environment (the wheels
# nvidia-cuda-nvcc and those it comes with), or to an empty string.
#
# The environment is asked for its own folders: an isolated build sees others on its path.
function(routestats_nvcc_of_python compiler)
  set(${compiler} "" PARENT_SCOPE)
  if(NOT Python_EXECUTABLE)
    return()
  endif()
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "import sys, sysconfig
paths = [*map(sysconfig.get_path, ('purelib', 'platlib')), *sys.path]
print(*dict.fromkeys(filter(None, paths)), sep=';', end='')"
    OUTPUT_VARIABLE folders ERROR_QUIET)
  foreach(folder IN LISTS folders)
    file(GLOB found "${folder}/nvidia/cu*/bin/nvcc")
    if(found)
      list(SORT found COMPARE NATURAL ORDER DESCENDING)
      list(GET found 0 newest)
      set(${compiler} "${newest}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()
