# multiprocessing with each start method, and a process pool.
# status: 0
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor

warnings.simplefilter("ignore", DeprecationWarning)


def main():
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        with context.Pool(2) as pool:
            print(method, pool.map(abs, [-1, 2]))
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(method, list(pool.map(abs, [-3, 4])))


if __name__ == "__main__":
    main()
