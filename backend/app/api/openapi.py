def install(api, settings): pass
