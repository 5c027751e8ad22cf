// MKL asks two functions of its own whether Intel made the CPU. Loaded before it, these answer in their place: mkl.py. Products
// of matrices become faster by the first, those of one row by both.
extern "C" int mkl_serv_intel_cpu_true() { return 1; }
extern "C" int mkl_serv_intel_cpu() { return 1; }
