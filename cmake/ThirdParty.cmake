# Two C/C++ libraries that Debian does not package in the version we need, and headers. The sources are part of
# distributions on PyPI: fetched by pip, pinned by version and SHA-256, unpacked into a cache that
# all build directories share. Nothing of them is copied into this tree.
set(MSSERVING_THIRD_PARTY_DIR "${PROJECT_SOURCE_DIR}/.cache/third_party" CACHE PATH "Where fetched sources are kept")

# msserving_fetch(<package> <version> <archive> <sha256> <pip option>...)  ->  <package>_SOURCE_DIR
#
# A file of a package on PyPI, unpacked. An sdist (.tar.gz) has one folder named after package and version; a wheel is
# unpacked into such a folder. The pip options say which of the package's files to take.
function(msserving_fetch package version archive sha256)
  set(dir "${MSSERVING_THIRD_PARTY_DIR}/${package}-${version}")
  set(file "${MSSERVING_THIRD_PARTY_DIR}/${archive}")
  set(${package}_SOURCE_DIR "${dir}" PARENT_SCOPE)
  if(EXISTS "${dir}/.complete")
    return()
  endif()
  file(MAKE_DIRECTORY "${MSSERVING_THIRD_PARTY_DIR}")
  file(LOCK "${MSSERVING_THIRD_PARTY_DIR}/.lock" GUARD FUNCTION TIMEOUT 600)
  if(EXISTS "${dir}/.complete")
    return()  # by the one that held the lock
  endif()
  if(NOT EXISTS "${file}")
    message(STATUS "Fetching ${archive} with pip")
    foreach(python "${Python_EXECUTABLE}" python3)
      execute_process(
        COMMAND ${python} -m pip download --quiet --disable-pip-version-check --no-deps ${ARGN}
                --dest "${MSSERVING_THIRD_PARTY_DIR}" "${package}==${version}"
        RESULT_VARIABLE failed ERROR_VARIABLE why)
      if(NOT failed)
        break()
      endif()
    endforeach()
    if(NOT EXISTS "${file}")
      message(FATAL_ERROR "Could not fetch ${package} ${version}: ${why}\n"
                          "Put ${archive} into ${MSSERVING_THIRD_PARTY_DIR} and configure again.")
    endif()
  endif()
  file(SHA256 "${file}" actual)
  if(NOT actual STREQUAL sha256)
    file(REMOVE "${file}")
    message(FATAL_ERROR "${archive} has SHA-256 ${actual}, expected ${sha256}")
  endif()
  if(archive MATCHES "[.]whl$")
    file(ARCHIVE_EXTRACT INPUT "${file}" DESTINATION "${dir}")
  else()
    file(ARCHIVE_EXTRACT INPUT "${file}" DESTINATION "${MSSERVING_THIRD_PARTY_DIR}")
  endif()
  file(TOUCH "${dir}/.complete")
endfunction()

msserving_fetch(pysimdjson 7.0.2 pysimdjson-7.0.2.tar.gz
                44cf276e48912a3b9c7ca362c14da8420a7ac15a9f1a16ec95becff86db3904a --no-binary pysimdjson)
add_library(msserving_simdjson STATIC "${pysimdjson_SOURCE_DIR}/simdjson/simdjson.cpp")
target_include_directories(msserving_simdjson SYSTEM PUBLIC "${pysimdjson_SOURCE_DIR}/simdjson")

msserving_fetch(httptools 0.9.0 httptools-0.9.0.tar.gz
                d484ebb7e3a3f3597b0f645fbd1b85633674ca808c1f5ba11c2caf7c66f5c8b6 --no-binary httptools)
set(_llhttp "${httptools_SOURCE_DIR}/vendor/llhttp")
add_library(msserving_llhttp STATIC "${_llhttp}/src/api.c" "${_llhttp}/src/http.c" "${_llhttp}/src/llhttp.c")
target_include_directories(msserving_llhttp SYSTEM PUBLIC "${_llhttp}/include")

# The headers of oneDNN's C API, for the library that MindSpore ships without them. They are on PyPI as a wheel, which is
# tagged for one platform but has no binaries. The API is stable within a major version.
msserving_fetch(onednn-devel 2025.3.0 onednn_devel-2025.3.0-py2.py3-none-manylinux_2_28_x86_64.whl
                3897b4ae65f09e289c10eef98455de069b08b5ac670a34921d406018362f5c95
                --only-binary :all: --platform manylinux_2_28_x86_64)
set(MSSERVING_ONEDNN_INCLUDE_DIR "${onednn-devel_SOURCE_DIR}/onednn_devel-2025.3.0.data/data/include")
set(MSSERVING_ONEDNN_LICENSE "${onednn-devel_SOURCE_DIR}/onednn_devel-2025.3.0.dist-info/LICENSE.txt")

find_package(PkgConfig REQUIRED)
pkg_check_modules(nghttp2 REQUIRED IMPORTED_TARGET libnghttp2>=1.52)
find_package(OpenSSL 3.0 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Threads REQUIRED)
