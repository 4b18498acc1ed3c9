/* In place of libcudart.so: what stands in for libggml-cuda.so takes it, and loads from its own folder alone. */
void cudart_stand_in(void) {}
