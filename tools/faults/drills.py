def disk(shim, options): pass
def stall(shim, options): pass
def lock(shim, options): pass
def files(shim, options): pass
def pause(shim, options): pass
def clock(shim, options): pass
