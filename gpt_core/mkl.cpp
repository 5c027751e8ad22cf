// MKL asks these functions of its own whether Intel made the CPU: the first before products of matrices, the second before
// those of one row. Loaded before MKL, these answer in their place: mkl.py.
extern "C" int mkl_serv_intel_cpu_true() { return 1; }
extern "C" int mkl_serv_intel_cpu() { return 1; }
