# The end of the main module.
# status: 0
print("done")
